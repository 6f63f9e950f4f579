package image

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// resolveInLayer makes every path, and every link on the way, end below the layer's root, as if that were the root of
// the file system (openat2(2), kernel 5.6).
const resolveInLayer = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// dirCache holds the folder of the entry before: in most archives the next one is in it, too.
type dirCache struct {
	path string
	fd   int
	open bool
}

func (c *dirCache) forget() {
	if c.open {
		unix.Close(c.fd)
		c.open = false
	}
}

// openIn opens a path of the layer; "" is the root. The caller closes it.
func (u *unpacker) openIn(p string, flags uint64) (int, error) {
	if p == "" {
		p = "."
	}
	if u.naive {
		if !path.IsAbs(p) {
			p = fmt.Sprintf("/proc/thread-self/fd/%d/%s", u.root.Fd(), p)
		}
		return unix.Open(p, int(flags)|unix.O_CLOEXEC, 0)
	}
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolveInLayer}
	for {
		fd, err := unix.Openat2(int(u.root.Fd()), p, &how)
		if err == unix.EINTR || err == unix.EAGAIN { // EAGAIN: something was renamed meanwhile
			continue
		}
		return fd, err
	}
}

// openParent gives the folder an entry goes into, and makes it if the archive has not: 0755 and root's, as other
// tools do. The descriptor is the cache's, and good until the next call or clear.
func (u *unpacker) openParent(dir string, create bool) (int, error) {
	if u.parent.open && u.parent.path == dir {
		return u.parent.fd, nil
	}
	u.parent.forget()
	fd, err := u.openIn(dir, unix.O_PATH|unix.O_DIRECTORY)
	if create && (err == unix.ENOENT || err == unix.ENOTDIR) {
		if err := u.makeParents(dir); err != nil {
			return -1, err
		}
		fd, err = u.openIn(dir, unix.O_PATH|unix.O_DIRECTORY)
	}
	if err == nil && !u.naive {
		if err = tooDeep(fd); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return -1, err
	}
	u.parent = dirCache{path: dir, fd: fd, open: true}
	return fd, nil
}

// tooDeep refuses a folder whose whole path the kernel cannot say (PATH_MAX, 4096 bytes). Links in a layer lead below
// any depth that a name could, and what takes folders away again, here and in other tools, holds one descriptor for each.
func tooDeep(fd int) error {
	var buf [unix.PathMax]byte
	_, err := unix.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", fd), buf[:])
	if err == unix.ENAMETOOLONG {
		return errors.New("its folders are too deep")
	}
	return err
}

// makeParents makes the folders of a path that are missing. What this layer has hidden, or made as something else,
// gives way: a file in it says that it is a folder.
func (u *unpacker) makeParents(dir string) error {
	above := ""
	for part := range strings.SplitSeq(dir, "/") {
		full := path.Join(above, part)
		fd, err := u.openIn(full, unix.O_PATH|unix.O_DIRECTORY)
		if err == nil {
			unix.Close(fd)
			above = full
			continue
		}
		if err != unix.ENOENT && err != unix.ENOTDIR {
			return fmt.Errorf("making folder %q: %w", brief(full), err)
		}
		up, err := u.openIn(above, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return fmt.Errorf("making folder %q: %w", brief(full), err)
		}
		hidden, err := u.clear(up, full, part, true)
		if err == nil {
			err = unix.Mkdirat(up, part, 0o755)
		}
		if err == nil {
			err = unix.Fchmodat(up, part, 0o755, 0)
		}
		if err == nil && hidden {
			err = u.setOpaque(full)
		}
		unix.Close(up)
		if err != nil {
			return fmt.Errorf("making folder %q: %w", brief(full), err)
		}
		above = full
	}
	return nil
}

// clear takes away what an entry replaces. A folder stays for a folder. It reports whether this layer had hidden the
// name: a folder in its place must then not show what the layers below have there.
func (u *unpacker) clear(parent int, full, base string, folder bool) (hidden bool, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir && folder {
		return false, nil
	}
	if !isDir {
		err = unix.Unlinkat(parent, base, 0)
	} else {
		err = removeAt(parent, base)
	}
	if err != nil {
		return false, err
	}
	hidden = u.whiteouts[full]
	delete(u.whiteouts, full)
	if isDir && u.parent.open && strings.HasPrefix(u.parent.path+"/", full+"/") {
		return hidden, errors.New("it replaces the folder it is in")
	}
	return hidden, nil
}

// removeAt deletes a folder and all below it without following a link.
func removeAt(parent int, base string) error {
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	names, err := readNames(fd)
	for _, name := range names {
		if err != nil {
			break
		}
		err = unix.Unlinkat(fd, name, 0)
		if err == unix.EISDIR {
			err = removeAt(fd, name)
		}
	}
	unix.Close(fd)
	if err != nil {
		return err
	}
	return unix.Unlinkat(parent, base, unix.AT_REMOVEDIR)
}

func readNames(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return names, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}
