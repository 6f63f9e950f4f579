package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// User is the user's own config.toml: what holds for every project. A zero field means the default.
type User struct {
	Store string // absolute folder of images, volumes and records; default $XDG_DATA_HOME/whisk
	// DetachKeys are as ParseDetachKeys reads them; nil: those of docker and podman, ctrl-p,ctrl-q.
	DetachKeys *string
	Pull       string // when run and up fetch images: "missing" (default), "always" or "never"
	Egress     string // what sandboxes may reach where whisk.toml and flags say nothing, as ParseEgress reads it; default "all"
	// Secrets are absolute paths that no mount of a folder above shows; nil: DefaultSecrets.
	Secrets []string
}

// UserFile returns the path of the user's config.toml: $XDG_CONFIG_HOME/whisk/config.toml, or below home/.config where
// that is unset or, against the XDG base directory specification, not absolute. It is "" without either.
func UserFile(lookup Lookup, home string) string {
	if lookup != nil {
		if dir, _ := lookup("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
			return filepath.Join(dir, "whisk", "config.toml")
		}
	}
	if home == "" {
		return ""
	}
	return filepath.Join(home, ".config", "whisk", "config.toml")
}

// LoadUser reads and checks the config.toml at path. A missing file, or an empty path, is an empty one. The error is
// Errors with every fault, or that of reading path itself.
func LoadUser(path string, opts LoadOptions) (*User, error) {
	user := &User{}
	if path == "" {
		return user, nil
	}
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return user, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the user's configuration: %w", err)
	}
	src := newSource(path, data)
	d := &decoder{source: src, dir: filepath.Dir(path), home: opts.Home, lookup: opts.LookupEnv}
	doc := parseDocument(src)
	table(d, doc.root, filepath.Base(path), userKeys(), user)
	doc.conform()
	if len(src.errs) > 0 {
		return nil, src.errs.sorted(path)
	}
	return user, nil
}

// userKeys are the keys of config.toml.
func userKeys() []key[User] {
	return []key[User]{
		{"store", func(d *decoder, n *node, u *User) {
			parsed(d, n, "store", "a string", func(s string) (string, error) {
				if hasControl(s) || !filepath.IsAbs(s) && s != "~" && !strings.HasPrefix(s, "~/") {
					return "", fmt.Errorf("store %q: want an absolute path, or one that begins with ~/", clip(s))
				}
				return hostPath(s, d.dir, d.home)
			}, &u.Store, unstable.String)
		}},
		{"detach_keys", func(d *decoder, n *node, u *User) {
			parsed(d, n, "detach_keys", "a string", func(s string) (*string, error) {
				_, err := ParseDetachKeys(s)
				return &s, err
			}, &u.DetachKeys, unstable.String)
		}},
		{"pull", func(d *decoder, n *node, u *User) {
			parsed(d, n, "pull", "a string", ParsePull, &u.Pull, unstable.String)
		}},
		{"secrets", func(d *decoder, n *node, u *User) { d.secrets(n, &u.Secrets) }},
		{"egress", func(d *decoder, n *node, u *User) { d.egress(n, &u.Egress) }},
	}
}

// ParsePull reads when an image is fetched: missing, always or never.
func ParsePull(s string) (string, error) {
	switch s {
	case "missing", "always", "never":
		return s, nil
	}
	return "", fmt.Errorf("pull %q: want missing, always or never", clip(s))
}

// ParseDetachKeys reads docker's notation: keys joined by commas, each a character or ctrl- with one of a-z @ [ \ ] ^ _.
// It returns the bytes that a terminal sends for them; none for "", which turns detaching off.
func ParseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	var keys []byte
	for k := range strings.SplitSeq(s, ",") {
		c, ctrl := strings.CutPrefix(strings.ToLower(k), "ctrl-")
		switch {
		case ctrl && len(c) == 1 && strings.Contains("abcdefghijklmnopqrstuvwxyz@[\\]^_", c):
			keys = append(keys, strings.ToUpper(c)[0]&0x1f)
		case len(k) == 1 && k[0] > ' ' && k[0] < 0x7f:
			keys = append(keys, k[0])
		default:
			return nil, fmt.Errorf("detach key %q: want a character, or ctrl- and one of a-z @ [ \\ ] ^ _, joined by commas", clip(k))
		}
	}
	return keys, nil
}
