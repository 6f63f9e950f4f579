package launcher

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// A root is the top folder of a sandbox's file system, seen from outside before the pivot. Every name below it
// comes from strangers, so it is resolved by the kernel with the folder as its root, openat2(2):
// neither a link nor ".." leads out.
type root struct {
	fd int
}

func (r root) openat2(name string, flags int, mode uint32, extra uint64) (int, error) {
	if !wall.Up("mount targets") {
		return unix.Open(fmt.Sprintf("/proc/thread-self/fd/%d%s", r.fd, path.Clean("/"+name)), flags|unix.O_CLOEXEC, mode)
	}
	for {
		fd, err := unix.Openat2(r.fd, path.Clean("/"+name), &unix.OpenHow{
			Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode),
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | extra,
		})
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		return fd, err
	}
}

// open opens an existing file.
func (r root) open(name string, flags int) (*os.File, error) {
	fd, err := r.openat2(name, flags, 0, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open in the sandbox's root", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// mkdirAll returns a handle of a folder (O_PATH), made with its parents where it is missing.
func (r root) mkdirAll(name string, mode uint32) (int, error) {
	name = path.Clean("/" + name)
	fd, err := r.openat2(name, unix.O_PATH|unix.O_DIRECTORY, 0, 0)
	if err == nil {
		return fd, nil
	}
	if !errors.Is(err, unix.ENOENT) || name == "/" {
		return -1, &os.PathError{Op: "open folder in the sandbox's root", Path: name, Err: err}
	}
	parent, err := r.mkdirAll(path.Dir(name), mode)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	if err := r.clearDangling(parent, path.Base(name)); err != nil {
		return -1, err
	}
	if err := unix.Mkdirat(parent, path.Base(name), mode); err != nil && err != unix.EEXIST {
		return -1, &os.PathError{Op: "make folder in the sandbox's root", Path: name, Err: err}
	}
	fd, err = r.openat2(name, unix.O_PATH|unix.O_DIRECTORY, 0, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open folder in the sandbox's root", Path: name, Err: err}
	}
	return fd, nil
}

// mkfile returns a handle (O_PATH) of a file to mount on, made empty where it is missing.
func (r root) mkfile(name string) (int, error) {
	name = path.Clean("/" + name)
	fd, err := r.openat2(name, unix.O_PATH, 0, 0)
	if err == nil {
		return fd, nil
	}
	if !errors.Is(err, unix.ENOENT) {
		return -1, &os.PathError{Op: "open in the sandbox's root", Path: name, Err: err}
	}
	parent, err := r.mkdirAll(path.Dir(name), 0o755)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	if err := r.clearDangling(parent, path.Base(name)); err != nil {
		return -1, err
	}
	made, err := unix.Openat(parent, path.Base(name), unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_WRONLY, 0o644)
	if err != nil {
		return -1, &os.PathError{Op: "make file in the sandbox's root", Path: name, Err: err}
	}
	unix.Close(made)
	return unix.Openat(parent, path.Base(name), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// clearDangling removes a link that leads nowhere, as Debian's /etc/resolv.conf often does: a mount needs a place.
func (r root) clearDangling(parent int, base string) error {
	var st unix.Stat_t
	err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT || err == nil && st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return nil
	}
	if err == nil {
		err = unix.Unlinkat(parent, base, 0)
	}
	if err != nil {
		return fmt.Errorf("replace dangling link %q: %w", base, err)
	}
	return nil
}
