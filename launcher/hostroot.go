package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The machine's own root cannot be one overlay: the mounts below it are locked to it in a user namespace
// (mount_namespaces(7)), and the kernel does not lay over a tree with locked mounts. So each of its top folders
// becomes an overlay of its own, and those that cannot are mounted read-only.

// hiddenOnHost are the folders that the image "host" shows empty: the files of people, and the sockets of services.
var hiddenOnHost = [...]string{"/home", "/root", "/run", "/tmp", "/var/tmp", "/var/home", "/media", "/mnt", "/srv", "/boot", "/lost+found"}

// writableOnHost are the folders that get an owner inside the sandbox, so that files can be made in them: all
// others belong to an id that is not mapped.
var writableOnHost = [...]string{"/etc", "/opt", "/usr", "/usr/local", "/usr/local/bin", "/usr/local/lib", "/usr/local/share", "/var", "/var/lib", "/var/cache", "/var/log", "/var/spool"}

func (b *builder) hostRoot(upper, work, merged string) error {
	top, layers := filepath.Join(upper, "top"), filepath.Join(upper, "layers")
	for _, d := range []string{top, layers} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("make root: %w", err)
		}
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		return fmt.Errorf("read the machine's root: %w", err)
	}
	at, err := unix.Open(merged, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	fd, err := cloneTree(unix.AT_FDCWD, top, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		unix.Close(at)
		return err
	}
	if err := put(fd, at); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	if err := b.openRoot(merged); err != nil {
		return err
	}
	for _, e := range entries {
		name := "/" + e.Name()
		switch {
		case e.Type()&os.ModeSymlink != 0:
			to, err := os.Readlink(name)
			if err == nil {
				err = os.Symlink(to, filepath.Join(merged, name))
			}
			if err != nil && !errors.Is(err, os.ErrExist) {
				return fmt.Errorf("link %s: %w", name, err)
			}
		case !e.IsDir() || slices.Contains([]string{"/proc", "/sys", "/dev"}, name):
		default:
			if err := b.hostFolder(name, filepath.Join(merged, name), layers, work); err != nil {
				return fmt.Errorf("mount the machine's %s: %w", name, err)
			}
		}
	}
	for _, name := range hiddenOnHost {
		if err := b.hide(name); err != nil {
			return fmt.Errorf("hide the machine's %s: %w", name, err)
		}
	}
	return nil
}

// hostFolder mounts one top folder of the machine.
func (b *builder) hostFolder(name, target, layers, work string) error {
	if err := os.Mkdir(target, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if slices.Contains(hiddenOnHost[:], name) {
		return nil
	}
	up, wk := filepath.Join(layers, name), filepath.Join(work, name)
	for _, d := range []string{up, wk} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for _, d := range writableOnHost {
		if st, err := os.Lstat(d); err == nil && st.IsDir() && strings.HasPrefix(d+"/", name+"/") {
			if err := os.MkdirAll(filepath.Join(layers, d), 0o755); err != nil {
				return err
			}
		}
	}
	err := unix.Mount("overlay", target, "overlay", unix.MS_NODEV|unix.MS_NOSUID, "userxattr,lowerdir="+name+",upperdir="+up+",workdir="+wk)
	if err == nil {
		return b.part(target)
	}
	at, err := unix.Open(target, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	fd, err := cloneTree(unix.AT_FDCWD, name, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		unix.Close(at)
		return err
	}
	return put(fd, at)
}

// part keeps a mount in mind that the root is made of.
func (b *builder) part(name string) error {
	if !b.readOnly {
		return nil
	}
	fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		b.parts = append(b.parts, fd)
	}
	return err
}

// hide mounts an empty folder in memory over one of the machine's.
func (b *builder) hide(name string) error {
	fd, err := b.root.openat2(name, unix.O_PATH|unix.O_DIRECTORY, 0, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return nil // not there, or a link to one that is hidden itself
	}
	mode := uint32(0o755)
	if strings.HasSuffix(name, "/tmp") {
		mode = 0o1777
	}
	tmp, err := newTmpfs(unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, 0, mode)
	if err != nil {
		unix.Close(fd)
		return err
	}
	if b.readOnly {
		part, err := unix.FcntlInt(uintptr(tmp), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			unix.Close(tmp)
			unix.Close(fd)
			return err
		}
		b.parts = append(b.parts, part)
	}
	return b.root.settle(name, tmp, fd, unix.TMPFS_MAGIC)
}
