package config

import (
	"encoding/csv"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ParseMountFlag reads a mount as docker's --mount does: comma-separated keys and values, quoted as in CSV (RFC 4180)
// where they hold a comma. Keys: type (volume, bind, tmpfs), source or src, target, dst or destination, readonly or
// ro, rw, volume-nocopy, tmpfs-size, tmpfs-mode (octal), exec or noexec (tmpfs only; as docker's it is noexec without a word of
// it), bind-create-src. bind-propagation=private or rprivate, consistency and relabel
// change nothing. Paths are resolved as ParseMount does; a missing source is not made unless bind-create-src says so.
func ParseMountFlag(s, base, home string) (Mount, error) {
	m, err := parseMountFlag(s, base, home)
	if err != nil {
		return Mount{}, fmt.Errorf("mount %q: %w", clip(s), err)
	}
	return m, nil
}

func parseMountFlag(s, base, home string) (Mount, error) {
	if hasControl(s) {
		return Mount{}, errControl
	}
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return Mount{}, errors.New("want key=value,key=value with values that hold a comma or a quote in double quotes")
	}
	m := Mount{Kind: MountVolume}
	given := map[string]string{} // by the key's main name
	for _, f := range fields {
		if err := m.field(f, given); err != nil {
			return Mount{}, err
		}
	}
	return m, m.finish(given, base, home)
}

// field takes one key and its value.
func (m *Mount) field(field string, given map[string]string) error {
	key, value, hasValue := strings.Cut(field, "=")
	switch key {
	case "src":
		key = "source"
	case "dst", "destination":
		key = "target"
	case "ro":
		key = "readonly"
	}
	if _, twice := given[key]; twice {
		return fmt.Errorf("%s is given twice", key)
	}
	given[key] = value
	var err error
	switch key {
	case "type", "source", "target", "tmpfs-size", "tmpfs-mode":
		if value == "" {
			return fmt.Errorf("%s has no value; want %s=…", key, key)
		}
	}
	switch key {
	case "type":
		m.Kind = MountKind(value)
		if m.Kind != MountBind && m.Kind != MountVolume && m.Kind != MountTmpfs {
			return fmt.Errorf("type %q is not bind, volume or tmpfs", value)
		}
	case "source":
		m.Source = value
	case "target":
		m.Target, err = mountTarget(value)
	case "readonly":
		m.ReadOnly, err = flagValue(key, value, hasValue)
	case "rw":
		m.ReadOnly, err = flagValue(key, value, hasValue)
		m.ReadOnly = !m.ReadOnly
	case "volume-nocopy":
		m.NoCopy, err = flagValue(key, value, hasValue)
	case "bind-create-src":
		m.Create, err = flagValue(key, value, hasValue)
	case "noexec":
		m.NoExec, err = flagValue(key, value, hasValue)
	case "exec":
		m.NoExec, err = flagValue(key, value, hasValue)
		m.NoExec = !m.NoExec
	case "tmpfs-size":
		m.Size, err = tmpfsSize(value)
	case "tmpfs-mode":
		m.Mode, err = tmpfsMode(value)
	case "consistency", "relabel", "z", "Z":
	case "bind-propagation":
		if value != "private" && value != "rprivate" {
			return fmt.Errorf("bind-propagation %q: mounts made later are not passed between host and sandbox; leave it away", value)
		}
	default:
		return unknownMountKey(key)
	}
	return err
}

func unknownMountKey(key string) error {
	keys := []string{"type", "source", "target", "readonly", "volume-nocopy", "tmpfs-size", "tmpfs-mode", "exec", "noexec", "bind-create-src"}
	if s := suggest(key, append(keys, "destination")); s != "" {
		return fmt.Errorf("unknown key %q; did you mean %q?", clip(key), s)
	}
	return fmt.Errorf("unknown key %q; want one of %s", clip(key), strings.Join(keys, ", "))
}

// finish checks the keys against one another and resolves the source.
func (m *Mount) finish(given map[string]string, base, home string) error {
	has := func(key string) bool { _, ok := given[key]; return ok }
	switch {
	case m.Target == "":
		return errors.New("the target is missing; want target=/path/in/the/sandbox")
	case has("readonly") && has("rw"):
		return errors.New("it has both readonly and rw")
	case m.Kind != MountVolume && has("volume-nocopy"):
		return fmt.Errorf("volume-nocopy is not for type=%s", m.Kind)
	case has("exec") && has("noexec"):
		return errors.New("it has both exec and noexec")
	case m.Kind != MountTmpfs && (has("tmpfs-size") || has("tmpfs-mode") || has("exec") || has("noexec")):
		return fmt.Errorf("tmpfs-size, tmpfs-mode, exec and noexec are not for type=%s", m.Kind)
	case m.Kind != MountBind && (has("bind-propagation") || has("bind-create-src")):
		return fmt.Errorf("bind-propagation and bind-create-src are not for type=%s", m.Kind)
	}
	switch m.Kind {
	case MountTmpfs:
		if has("source") {
			return errors.New("a tmpfs has no source")
		}
		if !has("exec") && !has("noexec") {
			m.NoExec = true
		}
	case MountVolume:
		if m.Source == "" {
			return nil
		}
		if isHostPath(m.Source) {
			return fmt.Errorf("source %q is a path, and a volume has a name; say type=bind", clip(m.Source))
		}
		return volumeName(m.Source)
	case MountBind:
		if m.Source == "" {
			return errors.New("the source is missing; want source=/path/on/the/host")
		}
		if !isHostPath(m.Source) {
			return fmt.Errorf("source %q is not a path; a path begins with /, ./, ../ or ~/", clip(m.Source))
		}
		var err error
		m.Source, err = hostPath(m.Source, base, home)
		return err
	}
	return nil
}

// flagValue reads key, key=true or key=false.
func flagValue(key, value string, hasValue bool) (bool, error) {
	if !hasValue {
		return true, nil
	}
	b, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("%s=%s: want true or false", key, clip(value))
	}
	return b, nil
}

// String returns the mount as ParseMountFlag reads it.
func (m Mount) String() string {
	fields := []string{"type=" + string(m.Kind)}
	if m.Source != "" {
		fields = append(fields, "src="+m.Source)
	}
	fields = append(fields, "dst="+m.Target)
	if m.ReadOnly {
		fields = append(fields, "ro")
	}
	if m.NoCopy {
		fields = append(fields, "volume-nocopy")
	}
	if m.Create {
		fields = append(fields, "bind-create-src")
	}
	if m.Size != 0 {
		fields = append(fields, "tmpfs-size="+strconv.FormatInt(m.Size, 10))
	}
	if m.Mode != 0 {
		fields = append(fields, fmt.Sprintf("tmpfs-mode=%04o", m.Mode))
	}
	if m.Kind == MountTmpfs && !m.NoExec {
		fields = append(fields, "exec")
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write(fields) // a strings.Builder takes everything
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}
