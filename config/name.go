package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// maxName is the longest name of anything: a DNS label's limit (RFC 1035 §2.3.4), so that every name can become one.
const maxName = 63

// ValidName says why s cannot name a sandbox, volume, network or project, or returns nil. A name is one to 63
// characters: letters, digits, dot, dash and underscore, beginning with a letter or digit.
func ValidName(s string) error {
	switch {
	case s == "":
		return errors.New("a name is missing")
	case len(s) > maxName:
		return fmt.Errorf("name %q is %d characters long: at most %d are allowed", clip(s), len(s), maxName)
	case !isAlnum(s[0]):
		return fmt.Errorf("name %q must begin with a letter or digit", s)
	}
	for _, r := range s {
		if r >= 0x80 || !isAlnum(byte(r)) && !strings.ContainsRune("_.-", r) {
			return fmt.Errorf("name %q holds %q: letters, digits, dot, dash and underscore are allowed", s, r)
		}
	}
	return nil
}

// ValidAppName says why s cannot name an app, or returns nil. An app's name is its host name too: a DNS label of
// lower-case letters, digits and inner dashes, at most 63 characters, and not localhost.
func ValidAppName(s string) error {
	if err := ValidName(s); err != nil {
		return err
	}
	if s == "localhost" {
		return errors.New(`an app cannot be named "localhost": inside a sandbox that is the sandbox itself`)
	}
	label := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r == '_' || r == '.':
			return '-'
		default:
			return unicode.ToLower(r)
		}
	}, s), "-")
	if label != s {
		return fmt.Errorf("app name %q is also a host name: lower-case letters, digits and inner dashes are allowed; %q would do", s, label)
	}
	return nil
}

// ValidHostname says why s cannot be a host name, or returns nil: labels of letters, digits, dash and underscore
// joined by dots, 63 characters each, 64 in all (HOST_NAME_MAX, sethostname(2)).
func ValidHostname(s string) error { return validHost(s, 64) }

// validHost checks a host name of at most limit bytes.
func validHost(s string, limit int) error {
	switch {
	case s == "":
		return errors.New("a host name is missing")
	case len(s) > limit:
		return fmt.Errorf("host name %q is %d characters long: at most %d are allowed", clip(s), len(s), limit)
	}
	for label := range strings.SplitSeq(s, ".") {
		switch {
		case label == "":
			return fmt.Errorf("host name %q has an empty part", s)
		case len(label) > maxName:
			return fmt.Errorf("host name %q has a part of %d characters: at most %d are allowed", clip(s), len(label), maxName)
		case label[0] == '-' || label[len(label)-1] == '-':
			return fmt.Errorf("host name %q has a part that begins or ends with a dash", s)
		}
		for _, r := range label {
			if r >= 0x80 || !isAlnum(byte(r)) && r != '-' && r != '_' {
				return fmt.Errorf("host name %q holds %q: letters, digits, dash, underscore and dot are allowed", s, r)
			}
		}
	}
	return nil
}

// ReservedNetwork tells whether --network gives a name a meaning of its own, so that no network, and no project, which is
// one, can be called so.
func ReservedNetwork(name string) bool {
	return slices.Contains([]string{"none", "host", "private", "bridge"}, name)
}

// DefaultName is the name of a project whose whisk.toml gives none: the last part of dir's path in lower case, with
// a dash for each run of characters that a name may not hold, and "project" where nothing is left.
func DefaultName(dir string) string {
	var b strings.Builder
	dash := false
	for _, r := range strings.ToLower(filepath.Base(filepath.Clean(dir))) {
		if r < 0x80 && (isAlnum(byte(r)) || r == '_' || r == '.' || r == '-') && (b.Len() > 0 || isAlnum(byte(r))) {
			if dash {
				b.WriteByte('-')
			}
			b.WriteRune(r)
			dash = false
		} else {
			dash = b.Len() > 0
		}
	}
	name := b.String()
	name = strings.TrimRight(name[:min(len(name), maxName)], "-._")
	if name == "" {
		return "project"
	}
	return name
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// clip shortens what a message quotes.
func clip(s string) string {
	r := []rune(s)
	if len(r) <= 40 {
		return s
	}
	return string(r[:37]) + "..."
}

// errControl is the fault that hasControl finds.
var errControl = errors.New("it holds a control character or bytes that are not UTF-8")

// hasControl reports whether s holds a control character or bytes that are not UTF-8: neither belongs in a name or a
// path that is written to a terminal, a hosts file or a mount table.
func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar })
}
