package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
)

// Volume is a folder that outlives sandboxes; volume.json beside its data.
type Volume struct {
	Name      string            `json:"name"`
	CreatedAt time.Time         `json:"created_at"`
	Labels    map[string]string `json:"labels,omitempty"`
	Path      string            `json:"path"` // of the data on the host
	// Filled says that the image's content has been copied in, or that there was none to copy.
	Filled bool `json:"filled"`
	// Anonymous is the sandbox that a volume without a name was made for, or was handed on to: it is swept with what a
	// killed command leaves of that. Empty when it has been left behind on purpose, and for those with names.
	Anonymous string `json:"anonymous,omitempty"`
}

func (d Dirs) volumeData(name string) string { return filepath.Join(d.Volumes(), name, "data") }
func (d Dirs) volumeFile(name string) string { return filepath.Join(d.Volumes(), name, "volume.json") }

// Volumes lists all volumes by name.
func Volumes(d Dirs) ([]Volume, error) {
	entries, err := os.ReadDir(d.Volumes())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var out []Volume
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		v, err := InspectVolume(d, e.Name())
		if err != nil {
			continue // being made or removed
		}
		out = append(out, *v)
	}
	return out, nil
}

// InspectVolume reads one volume; an *Error of KindNotFound when there is none.
func InspectVolume(d Dirs, name string) (*Volume, error) {
	if err := config.ValidName(name); err != nil {
		return nil, AsError(err)
	}
	b, err := os.ReadFile(d.volumeFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Message: fmt.Sprintf("no volume %q", name), Hint: "whisk volume ls", Kind: KindNotFound, Exit: ExitWhisk}
	}
	if err != nil {
		return nil, fmt.Errorf("read volume: %w", err)
	}
	var v Volume
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("read volume %q: %w", name, err)
	}
	v.Path = d.volumeData(name)
	return &v, nil
}

// CreateVolume makes an empty volume; an error when it is there.
func CreateVolume(d Dirs, name string, labels map[string]string) (*Volume, error) {
	v, made, err := ensureVolume(d, name, labels, "")
	if err == nil && !made {
		return nil, &Error{Message: fmt.Sprintf("volume %q exists", name), Hint: "whisk volume inspect " + name, Exit: ExitWhisk}
	}
	return v, err
}

// EnsureVolume makes an empty volume where there is none; one that is there keeps its labels.
func EnsureVolume(d Dirs, name string, labels map[string]string) (*Volume, error) {
	v, _, err := ensureVolume(d, name, labels, "")
	return v, err
}

// ensureVolume makes a volume whole under another name and renames it, so that none is ever half made.
func ensureVolume(d Dirs, name string, labels map[string]string, anonymous string) (*Volume, bool, error) {
	if v, err := InspectVolume(d, name); err == nil {
		return v, false, nil
	} else if AsError(err).Kind != KindNotFound {
		return nil, false, err
	}
	if err := os.MkdirAll(d.Volumes(), OwnerOnly(0o755)); err != nil {
		return nil, false, fmt.Errorf("make volume: %w", err)
	}
	tmp, err := os.MkdirTemp(d.Volumes(), ".new-")
	if err != nil {
		return nil, false, fmt.Errorf("make volume: %w", err)
	}
	defer os.RemoveAll(tmp)
	v := &Volume{Name: name, CreatedAt: time.Now().UTC(), Labels: labels, Anonymous: anonymous, Path: d.volumeData(name)}
	if err := os.Mkdir(filepath.Join(tmp, "data"), 0o755); err != nil {
		return nil, false, fmt.Errorf("make volume: %w", err)
	}
	if err := writeJSON(filepath.Join(tmp, "volume.json"), v, true); err != nil {
		return nil, false, err
	}
	if err := os.Chmod(tmp, OwnerOnly(0o755)); err != nil {
		return nil, false, fmt.Errorf("make volume: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(d.Volumes(), name)); err != nil {
		if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
			v, err := InspectVolume(d, name) // another was quicker
			return v, false, err
		}
		return nil, false, fmt.Errorf("make volume: %w", err)
	}
	return v, true, nil
}

// RemoveVolume removes a volume that no sandbox mounts. Files in it belong to sub-ids: it must be called inside
// whisk's user namespace.
func RemoveVolume(d Dirs, name string) error {
	if _, err := InspectVolume(d, name); err != nil {
		return err
	}
	records, err := Records(d)
	if err != nil {
		return err
	}
	for _, r := range records {
		if slices.Contains(r.Volumes, name) || slices.ContainsFunc(r.App.Mounts, func(m config.Mount) bool { return m.Kind == config.MountVolume && m.Source == name }) {
			return &Error{Message: fmt.Sprintf("volume %q is used by sandbox %s (%s)", name, r.Name, r.ID), Hint: "whisk rm " + r.Name, Exit: ExitWhisk}
		}
	}
	return discard(d.Volumes(), name)
}

// DiscardVolume removes a volume whoever uses it; for anonymous ones, with their sandbox.
func DiscardVolume(d Dirs, name string) error { return discard(d.Volumes(), name) }

// OwnVolume gives an anonymous volume to a sandbox; to none when id is empty, and then it stays until somebody removes
// it by name. One that is not there is no error.
func OwnVolume(d Dirs, name, id string) error {
	err := changeVolume(d, name, func(v *Volume) error { v.Anonymous = id; return nil })
	if errors.Is(err, fs.ErrNotExist) || err != nil && AsError(err).Kind == KindNotFound {
		return nil
	}
	return err
}

// changeVolume writes what is known of a volume anew, whole, while nobody else does. The lock is that of its folder.
func changeVolume(d Dirs, name string, change func(*Volume) error) error {
	lock, err := os.Open(filepath.Dir(d.volumeData(name)))
	if err != nil {
		return fmt.Errorf("lock volume: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock volume %q: %w", name, err)
	}
	v, err := InspectVolume(d, name)
	if err != nil {
		return err
	}
	was := *v
	if err := change(v); err != nil {
		return err
	}
	if v.Anonymous == was.Anonymous && v.Filled == was.Filled {
		return nil
	}
	return writeJSON(d.volumeFile(name), v, true)
}

// discard renames a folder out of sight and removes it, so that a killed removal leaves nothing half there.
func discard(dir, name string) error {
	gone := filepath.Join(dir, ".gone-"+name+"-"+NewID())
	if err := os.Rename(filepath.Join(dir, name), gone); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return removeTree(gone)
}

// removeTree removes a tree, even through folders that their owner closed against himself.
func removeTree(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}

// volume mounts a named or anonymous volume. The first sandbox that uses it gets the image's files there, with
// owners and modes, as Docker does for empty volumes.
func (b *builder) volume(m *config.Mount, attrs uint64) error {
	name, anonymous := m.Source, ""
	if name == "" {
		for _, old := range b.anonymous { // of an earlier start of the same sandbox
			if v, err := InspectVolume(b.dirs, old); err == nil && v.Labels["whisk.target"] == m.Target {
				name = old
			}
		}
	}
	labels := map[string]string(nil)
	if name == "" {
		name, anonymous = "anonymous-"+NewID(), b.id
		labels = map[string]string{"whisk.target": m.Target}
	}
	v, made, err := ensureVolume(b.dirs, name, labels, anonymous)
	if err != nil {
		return err
	}
	if made && anonymous != "" {
		b.anonymous = append(b.anonymous, name)
	}
	target, err := b.root.target(m.Target, true)
	if err != nil {
		return err
	}
	if !v.Filled && !m.NoCopy {
		if err := b.fill(v, target); err != nil {
			unix.Close(target)
			return fmt.Errorf("copy the image's %s to volume %q: %w", m.Target, name, err)
		}
	}
	fd, err := cloneTree(unix.AT_FDCWD, v.Path, attrs)
	if err != nil {
		unix.Close(target)
		return err
	}
	if err := b.root.place(m.Target, fd, target); err != nil {
		return fmt.Errorf("mount volume %q on %s: %w", name, m.Target, err)
	}
	return nil
}

// fill copies a folder of the image into an empty volume. Another sandbox may be doing the same: the volume's
// lock makes one wait for the other.
func (b *builder) fill(v *Volume, from int) error {
	return changeVolume(b.dirs, v.Name, func(now *Volume) error {
		if now.Filled {
			return nil
		}
		entries, err := os.ReadDir(v.Path)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			to, err := unix.Open(v.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(to)
			if err := copyTree(from, to); err != nil {
				return err
			}
		}
		now.Filled = true
		return nil
	})
}
