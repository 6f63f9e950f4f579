package launcher

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

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
		if err == unix.ENOSYS && !wall.Up(failsClosed) {
			return unix.Openat(r.fd, "."+path.Clean("/"+name), flags|unix.O_CLOEXEC, mode)
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

// foreign refuses a handle of what whisk itself has mounted: a link of the image's to /dev, as the target of a volume or
// in the place of /etc/hosts, would put a stranger's file where /dev/null is looked for (CVE-2025-31133). The kernel says
// where a handle is. Nor may it be the root itself, which a mount would come to lie on unseen, and whose files a new volume would
// be filled with.
func (r root) foreign(name string, fd int) error {
	if !wall.Up("whisk's own mounts") {
		return nil
	}
	top, err := whereIs(r.fd)
	if err != nil {
		return err
	}
	at, err := whereIs(fd)
	if err != nil {
		return err
	}
	if at == top {
		return &Error{Message: fmt.Sprintf("%q leads to \"/\" in the image, which cannot be mounted on", name), Hint: "the image has a link there; choose another target, or another image", Exit: ExitWhisk}
	}
	in, ok := strings.CutPrefix(at, strings.TrimSuffix(top, "/")+"/")
	if !ok {
		return &Error{Message: fmt.Sprintf("%q leads out of the sandbox's root", name), Exit: ExitWhisk}
	}
	if first, _, _ := strings.Cut(in, "/"); in != "dev/shm" && (first == "dev" || first == "sys" || first == "proc") {
		return &Error{Message: fmt.Sprintf("%q leads to %q in the image, which whisk itself mounts", name, "/"+in), Hint: "the image has a link there; choose another target, or another image", Exit: ExitWhisk}
	}
	return nil
}

// target returns a handle (O_PATH) of the folder or file that something is to be mounted on, made where it is missing.
func (r root) target(name string, dir bool) (fd int, err error) {
	if dir {
		fd, err = r.mkdirAll(name, 0o755)
	} else {
		fd, err = r.mkfile(name)
	}
	if err != nil {
		return -1, err
	}
	if err := r.foreign(name, fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func whereIs(fd int) (string, error) {
	at, err := os.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", fd))
	if err != nil {
		return "", fmt.Errorf("find a folder of the sandbox's root: %w", err)
	}
	return at, nil
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
