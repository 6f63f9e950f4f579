package launcher

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// What whisk cp names in a sandbox is the app's to change while it is copied (CVE-2018-15664, CVE-2019-10152). The path is
// resolved once, by the kernel, with the sandbox's root as the root: no link leads out. From there on everything goes by
// handles: each entry of a folder is opened by its name alone, and no link is followed.

// maxCopyDepth bounds how deep folders are followed; each level holds two descriptors.
const maxCopyDepth = 256

const copiesInRoot wall.Name = "copies in the sandbox's root"

// resolveCopy opens what a copy names (O_PATH), in the root's own sense.
func (s *Sandbox) resolveCopy(name string, flags int) (int, error) {
	if !wall.Up(copiesInRoot) {
		return unix.Open(fmt.Sprintf("/proc/thread-self/fd/%d%s", s.b.root.fd, path.Clean("/"+name)), flags|unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	return s.b.root.openat2(name, flags|unix.O_PATH, 0, 0)
}

// CopyOut writes what is at a path of the sandbox to w as a tar archive: the entry itself is called as, and what is in it
// as/…; "." for its contents, a link then being followed. Owners are those that the sandbox sees. Devices, sockets and what the
// kernel makes up (/proc, /sys) are left out. Built must have returned nil.
func (s *Sandbox) CopyOut(name, as string, w io.Writer) error {
	flags := unix.O_NOFOLLOW
	if as == "." {
		flags = 0
	}
	fd, err := s.resolveCopy(name, flags)
	if err != nil {
		return copyFault(name, err)
	}
	c := copyOut{w: tar.NewWriter(w), one: s.maxID == 0}
	if err := c.entry(fd, as, 0); err != nil {
		return copyFault(name, err)
	}
	if c.entries == 0 {
		return &Error{Message: fmt.Sprintf("%q is neither a file, a folder nor a link that could be copied", name), Exit: ExitWhisk}
	}
	return c.w.Close()
}

func copyFault(name string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return &Error{Message: fmt.Sprintf("there is no %q in the sandbox", name), Kind: KindNotFound, Exit: ExitWhisk}
	case errors.Is(err, unix.EPIPE): // who reads it says why
		return err
	}
	return fmt.Errorf("copy %q: %w", name, err)
}

type copyOut struct {
	w       *tar.Writer
	one     bool // one id: all is root's
	entries int
}

// entry adds what a handle (O_PATH), which it closes, is of.
func (c *copyOut) entry(fd int, as string, depth int) error {
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if madeUp(fd) {
		return nil
	}
	h := &tar.Header{Name: as, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX}
	if c.one {
		h.Uid, h.Gid = 0, 0
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return c.folder(fd, h, depth)
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, "", target)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, string(target[:n])
		c.entries++
		return c.w.WriteHeader(h)
	case unix.S_IFREG:
		// By the handle: the name may be another's by now.
		f, err := reopen(fd, unix.O_RDONLY|unix.O_NONBLOCK)
		if err != nil {
			return err
		}
		defer f.Close()
		h.Typeflag, h.Size = tar.TypeReg, st.Size
		c.entries++
		if err := c.w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.CopyN(c.w, f, st.Size); err == io.EOF {
			return fmt.Errorf("%s was cut short while it was copied", as)
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (c *copyOut) folder(fd int, h *tar.Header, depth int) error {
	if depth == maxCopyDepth {
		return fmt.Errorf("folders are nested more than %d deep", maxCopyDepth)
	}
	dir, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(dir), h.Name)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	c.entries++
	if err := c.w.WriteHeader(h); err != nil {
		return err
	}
	for _, name := range names {
		flags := unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
		if !wall.Up(copiesInRoot) {
			flags &^= unix.O_NOFOLLOW
		}
		below, err := unix.Openat(dir, name, flags, 0)
		if errors.Is(err, unix.ENOENT) {
			continue // it has been removed meanwhile
		}
		if err == nil {
			err = c.entry(below, path.Join(h.Name, name), depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reopen opens what a handle (O_PATH) is of.
func reopen(fd, flags int) (*os.File, error) {
	name := fmt.Sprintf("/proc/thread-self/fd/%d", fd)
	got, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(got), name), nil
}

// madeUp tells whether a handle is of something that the kernel makes up: it has no contents to keep, and what is read or
// written there is read and written with whisk's rights.
func madeUp(fd int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return true
	}
	switch uint32(st.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC, 0x19800202: // mqueue
		return true
	}
	return false
}
