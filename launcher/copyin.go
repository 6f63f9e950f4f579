package launcher

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// CopyIn says where an archive goes. Its first entry is called "." and is what is copied, the others are below "./".
type CopyIn struct {
	Path   string // in the sandbox
	Name   string // what the entry is called where Path is a folder; empty: its contents go there
	Folder bool   // the entry is a folder
	Owners bool   // keep the archive's owners; without, all becomes root's
}

// CopyIn takes a tar archive into the sandbox, as docker cp does: into a folder that is there, or as a new file or folder
// in one that is. Built must have returned nil.
func (s *Sandbox) CopyIn(to CopyIn, r io.Reader) error {
	base, as, err := s.copyTarget(to)
	if err != nil {
		return err
	}
	defer unix.Close(base)
	c := copyIn{base: base, as: as, owners: to.Owners, maxID: s.maxID}
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = c.entry(h, in)
		}
		if err != nil {
			if fault, ok := errors.AsType[*Error](err); ok {
				return fault
			}
			return fmt.Errorf("copy to %q: %w", to.Path, err)
		}
	}
}

// copyTarget finds the folder that things come to lie in (O_PATH), and what the first is called there.
func (s *Sandbox) copyTarget(to CopyIn) (base int, as string, err error) {
	base, err = s.resolveCopy(to.Path, 0)
	if err == nil {
		var st unix.Stat_t
		if err := unix.Fstat(base, &st); err != nil {
			unix.Close(base)
			return -1, "", err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return base, to.Name, nil
		}
		unix.Close(base)
		if to.Folder || strings.HasSuffix(to.Path, "/") {
			return -1, "", &Error{Message: fmt.Sprintf("%q in the sandbox is no folder", to.Path), Exit: ExitWhisk}
		}
	} else if !errors.Is(err, unix.ENOENT) {
		return -1, "", copyFault(to.Path, err)
	} else if strings.HasSuffix(to.Path, "/") && !to.Folder {
		return -1, "", copyFault(to.Path, err)
	}
	name := path.Clean("/" + to.Path)
	if base, err = s.resolveCopy(path.Dir(name), unix.O_DIRECTORY); err != nil {
		return -1, "", copyFault(path.Dir(name), err)
	}
	return base, path.Base(name), nil
}

type copyIn struct {
	base   int // O_PATH
	as     string
	owners bool
	maxID  int
}

// beneath opens a folder below the base; no link on the way is followed, whoever has made it.
func (c *copyIn) beneath(name string) (int, error) {
	if !wall.Up(copiesInRoot) {
		return unix.Openat(c.base, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	for {
		fd, err := unix.Openat2(c.base, name, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// parent opens the folder of an entry, made where the archive does not say.
func (c *copyIn) parent(name string) (int, error) {
	fd, err := c.beneath(name)
	if err != unix.ENOENT || name == "." {
		return fd, err
	}
	above, err := c.parent(path.Dir(name))
	if err != nil {
		return -1, err
	}
	err = unix.Mkdirat(above, path.Base(name), 0o755)
	unix.Close(above)
	if err != nil && err != unix.EEXIST {
		return -1, err
	}
	return c.beneath(name)
}

func (c *copyIn) entry(h *tar.Header, content io.Reader) error {
	name := path.Join(c.as, strings.TrimPrefix(path.Clean("/"+h.Name), "/"))
	if name == "" {
		return nil // the folder that is there
	}
	dir, base := path.Dir(name), path.Base(name)
	at, err := c.parent(dir)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return &Error{Message: fmt.Sprintf("%q in the sandbox is a link or a file, and %q was to go below it", dir, h.Name), Hint: "name the folder that it leads to", Exit: ExitWhisk}
	}
	if err != nil {
		return err
	}
	defer unix.Close(at)
	if madeUp(at) {
		return &Error{Message: fmt.Sprintf("%q cannot be copied to what the kernel makes up", h.Name), Exit: ExitWhisk}
	}
	err = c.make(at, base, h, content)
	if h.Typeflag == tar.TypeDir && errors.Is(err, unix.ENOTDIR) {
		return &Error{Message: fmt.Sprintf("%q in the sandbox is a link or a file, and a folder was to go there", name), Hint: "name the folder that it leads to", Exit: ExitWhisk}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// make puts one entry into an open folder.
func (c *copyIn) make(at int, base string, h *tar.Header, content io.Reader) error {
	mode := uint32(h.Mode) & 0o7777
	switch h.Typeflag {
	case tar.TypeDir:
		err := unix.Mkdirat(at, base, 0o700)
		if errors.Is(err, unix.EEXIST) {
			fd, err := unix.Openat(at, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			return unix.Close(fd) // it stays as it is
		}
		if err != nil {
			return err
		}
		fd, err := unix.Openat(at, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return c.finish(fd, h, mode)
	case tar.TypeReg:
		if err := unlinkFile(at, base); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
		fd, err := unix.Openat(at, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		mounted := errors.Is(err, unix.EEXIST)
		if mounted { // a file that is a mount of its own
			fd, err = unix.Openat(at, base, unix.O_WRONLY|unix.O_TRUNC|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), base)
		defer f.Close()
		if _, err := io.Copy(f, content); err != nil || mounted {
			return err
		}
		return c.finish(fd, h, mode)
	case tar.TypeSymlink:
		if err := unlinkFile(at, base); err != nil {
			return err
		}
		if err := unix.Symlinkat(h.Linkname, at, base); err != nil {
			return err
		}
		uid, gid, err := c.owner(h)
		if err != nil || c.maxID == 0 {
			return err
		}
		return unix.Fchownat(at, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	case tar.TypeLink:
		from := path.Join(c.as, strings.TrimPrefix(path.Clean("/"+h.Linkname), "/"))
		dir, err := c.beneath(path.Dir(from))
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		if err := unlinkFile(at, base); err != nil {
			return err
		}
		return unix.Linkat(dir, path.Base(from), at, base, 0)
	case tar.TypeXGlobalHeader:
		return nil
	}
	return &Error{Message: fmt.Sprintf("%q is neither a file, a folder nor a link", h.Name), Exit: ExitWhisk}
}

func unlinkFile(at int, base string) error {
	if err := unix.Unlinkat(at, base, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// finish gives an open file its owner, mode and time; a change of owner takes setuid bits away, so it comes first.
func (c *copyIn) finish(fd int, h *tar.Header, mode uint32) error {
	uid, gid, err := c.owner(h)
	if err != nil {
		return err
	}
	if c.maxID != 0 {
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return err
	}
	t := unix.NsecToTimeval(h.ModTime.UnixNano())
	return unix.Futimes(fd, []unix.Timeval{t, t})
}

// owner is who an entry is to belong to.
func (c *copyIn) owner(h *tar.Header) (uid, gid int, err error) {
	if !c.owners {
		return 0, 0, nil
	}
	if c.maxID != 0 && (h.Uid < 0 || h.Gid < 0 || h.Uid > c.maxID || h.Gid > c.maxID) {
		return 0, 0, &Error{Message: fmt.Sprintf("%q belongs to %d:%d, and sandboxes have ids up to %d", h.Name, h.Uid, h.Gid, c.maxID), Hint: "leave -a out", Exit: ExitWhisk}
	}
	return h.Uid, h.Gid, nil
}
