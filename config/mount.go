package config

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// ParseMount reads a mount as docker's and podman's -v do: source:target[:option,…], or a target alone for an
// anonymous volume. A source that begins with /, ., .. or ~ is a path of the host, made absolute with base (an absolute folder)
// and home (empty: ~ is an error); any other is a volume's name. Options are ro, rw and nocopy; z, Z, cached, delegated, consistent,
// private and rprivate are taken and change nothing: there is no label to set, and what they promise is so already.
// Create is set for binds, as docker makes a missing source folder.
func ParseMount(s, base, home string) (Mount, error) {
	m, err := parseMount(s, base, home)
	if err != nil {
		return Mount{}, fmt.Errorf("mount %q: %w", clip(s), err)
	}
	return m, nil
}

func parseMount(s, base, home string) (Mount, error) {
	parts := strings.Split(s, ":")
	switch {
	case s == "":
		return Mount{}, errors.New("is empty; want source:target")
	case hasControl(s):
		return Mount{}, errControl
	case len(parts) > 3:
		return Mount{}, errors.New("too many colons; want source:target[:ro]; --mount takes paths with a colon")
	case len(parts) == 1:
		if isHostPath(s) && s[0] != '/' {
			return Mount{}, fmt.Errorf("the target is missing; want %s:/path/in/the/sandbox", s)
		}
		if s[0] != '/' {
			return Mount{}, fmt.Errorf("the target is missing; want %s:/path/in/the/sandbox, or an absolute path alone for an anonymous volume", s)
		}
		target, err := mountTarget(s)
		return Mount{Kind: MountVolume, Target: target}, err
	}
	if parts[0] == "" {
		return Mount{}, errors.New("the source is empty; want source:target")
	}
	m := Mount{Kind: MountVolume, Source: parts[0]}
	var err error
	if m.Target, err = mountTarget(parts[1]); err != nil {
		return Mount{}, err
	}
	if isHostPath(parts[0]) {
		m.Kind, m.Create = MountBind, true
		if m.Source, err = hostPath(parts[0], base, home); err != nil {
			return Mount{}, err
		}
	} else if err := volumeName(parts[0]); err != nil {
		return Mount{}, err
	}
	if len(parts) == 3 {
		err = m.options(strings.Split(parts[2], ","))
	}
	return m, err
}

// options sets what the third part of a -v mount says.
func (m *Mount) options(options []string) error {
	access := ""
	for _, o := range options {
		switch o {
		case "ro", "rw":
			if access != "" && access != o {
				return errors.New("it is both ro and rw")
			}
			access, m.ReadOnly = o, o == "ro"
		case "nocopy":
			if m.Kind != MountVolume {
				return errors.New("nocopy is for volumes; nothing is copied into a folder of the host")
			}
			m.NoCopy = true
		case "z", "Z", "cached", "delegated", "consistent", "private", "rprivate":
		case "shared", "rshared", "slave", "rslave":
			return fmt.Errorf("mounts made later are not passed between host and sandbox; leave %s away", o)
		case "":
			return errors.New("an option is empty; want ro, rw or nocopy")
		default:
			if hint := didYouMean(o, []string{"ro", "rw", "nocopy"}); hint != "" && len(o) > 2 {
				return fmt.Errorf("unknown option %q; %s", clip(o), hint)
			}
			return fmt.Errorf("unknown option %q; want ro, rw or nocopy", clip(o))
		}
	}
	return nil
}

// isHostPath reports whether docker would take a -v source for a path of the host.
func isHostPath(s string) bool {
	return s == "." || s == ".." || strings.HasPrefix(s, "/") || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../") || strings.HasPrefix(s, "~")
}

// hostPath makes a path of the host absolute.
func hostPath(s, base, home string) (string, error) {
	switch {
	case s == "~" || strings.HasPrefix(s, "~/"):
		if home == "" {
			return "", errors.New("~ cannot be resolved: there is no home directory ($HOME is not set)")
		}
		return filepath.Join(home, s[1:]), nil
	case strings.HasPrefix(s, "~"):
		return "", fmt.Errorf("%q: another user's home directory is not looked up; write its path, or ./%s", clip(s), clip(s))
	case filepath.IsAbs(s):
		return filepath.Clean(s), nil
	}
	return filepath.Join(base, s), nil
}

// mountTarget checks and cleans a path in the sandbox.
func mountTarget(s string) (string, error) {
	switch {
	case s == "":
		return "", errors.New("the target is empty; want an absolute path in the sandbox")
	case s[0] != '/':
		return "", fmt.Errorf("target %q is not an absolute path in the sandbox", clip(s))
	case slices.Contains(strings.Split(s, "/"), ".."):
		return "", fmt.Errorf("target %q: .. is not allowed", clip(s))
	}
	clean := path.Clean(s)
	if clean == "/" {
		return "", errors.New("the root of the sandbox cannot be mounted over; want a folder below it")
	}
	return clean, nil
}

// volumeName checks a source that is no path.
func volumeName(s string) error {
	err := ValidName(s)
	if err != nil && strings.Contains(s, "/") {
		return fmt.Errorf("%q is neither a path nor a volume's name; a path begins with /, ./, ../ or ~/: ./%s", clip(s), clip(s))
	}
	if err != nil {
		return fmt.Errorf("volume %w", err)
	}
	return nil
}
