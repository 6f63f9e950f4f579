package launcher

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// copyTree copies the content and the attributes of one folder to another that is empty, by descriptors: no link
// is followed. Owners, modes, times, extended attributes, hard links and holes are kept; device nodes cannot be
// made in a user namespace and are left out, as are sockets.
func copyTree(from, to int) error {
	c := copier{links: map[[2]uint64]string{}, top: to}
	return c.dir(from, to, "")
}

type copier struct {
	top   int
	links map[[2]uint64]string // device and inode → path below top of the first copy
}

func (c *copier) dir(from, to int, where string) error {
	fd, err := unix.Openat(from, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), where)
	defer f.Close()
	for {
		names, err := f.Readdirnames(256)
		for _, name := range names {
			if err := c.entry(fd, to, name, where+"/"+name); err != nil {
				return fmt.Errorf("%s/%s: %w", where, name, err)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	out, err := unix.Openat(to, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(out)
	return attributes(fd, out, &st)
}

// link makes a hard link to what has been copied before. The way there is looked up once more, and who has the folder
// mounted already may have put a link in it: none is followed.
func (c *copier) link(first string, to int, name string) error {
	for {
		parent, err := unix.Openat2(c.top, path.Dir(first), &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
		})
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil {
			return err
		}
		defer unix.Close(parent)
		return unix.Linkat(parent, path.Base(first), to, name, 0)
	}
}

func (c *copier) entry(from, to int, name, where string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	key := [2]uint64{st.Dev, st.Ino}
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if first, ok := c.links[key]; ok {
			return c.link(first, to, name)
		}
		c.links[key] = where[1:]
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := unix.Mkdirat(to, name, 0o700); err != nil {
			return err
		}
		src, err := unix.Openat(from, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(src)
		dst, err := unix.Openat(to, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(dst)
		return c.dir(src, dst, where)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(from, name, buf)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(string(buf[:n]), to, name); err != nil {
			return err
		}
		if err := unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		return unix.UtimesNanoAt(to, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
	case unix.S_IFREG:
		src, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		in := os.NewFile(uintptr(src), name)
		defer in.Close()
		dst, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		out := os.NewFile(uintptr(dst), name)
		defer out.Close()
		if err := copyData(in, out, st.Size); err != nil {
			return err
		}
		return attributes(src, dst, &st)
	case unix.S_IFIFO:
		if err := unix.Mknodat(to, name, st.Mode, 0); err != nil {
			return err
		}
		return unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	}
	return nil
}

// copyData copies what is not a hole, lseek(2).
func copyData(in, out *os.File, size int64) error {
	var at int64
	for at < size {
		data, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(int(in.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := in.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(out, in, hole-data); err != nil && err != io.EOF {
			return err
		}
		at = hole
	}
	return out.Truncate(size)
}

// attributes gives one open file or folder the owner, mode, extended attributes and times of another. The owner
// comes first: chown(2) clears setuid bits and capabilities.
func attributes(from, to int, st *unix.Stat_t) error {
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil && err != unix.EPERM && err != unix.EINVAL {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	n, err := unix.Flistxattr(from, buf)
	if err == nil {
		for _, name := range bytes.Split(bytes.TrimRight(buf[:n], "\x00"), []byte{0}) {
			attr := string(name)
			if attr == "" || bytes.HasPrefix(name, []byte("user.overlay.")) || bytes.HasPrefix(name, []byte("trusted.")) {
				continue
			}
			value := make([]byte, 64<<10)
			size, err := unix.Fgetxattr(from, attr, value)
			if err != nil {
				continue // gone, or not ours to read
			}
			if err := unix.Fsetxattr(to, attr, value[:size], 0); err != nil && err != unix.EPERM && err != unix.ENOTSUP {
				return fmt.Errorf("extended attribute %s: %w", strconv.Quote(attr), err)
			}
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(to), []unix.Timespec{st.Atim, st.Mtim}, 0)
}
