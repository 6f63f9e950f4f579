package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// opaqueXattr marks a folder that hides those below it. whisk mounts overlayfs with "userxattr", which reads it in the
// user.* namespace (overlayfs.rst, "User xattr").
const opaqueXattr = "user.overlay.opaque"

// permissionBits are what chmod(2) takes of a tar header's mode.
const permissionBits = 0o7777

// sparseBlock: blocks of zeros are not written but left as holes from this size on. It is the block size of the usual
// file systems.
const sparseBlock = 4096

// hide applies a whiteout.
func (u *unpacker) hide(dir, base string) error {
	if base == opaqueMarker {
		if _, err := u.openParent(dir, true); err != nil {
			return err
		}
		return u.setOpaque(dir)
	}
	if strings.HasPrefix(base, aufsPrefix) {
		return nil
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if name == "" || name == "." || name == ".." {
		return errors.New("it hides no file")
	}
	full := path.Join(dir, name)
	for up := dir; up != "" && up != "."; up = path.Dir(up) {
		if u.whiteouts[up] {
			return nil // hidden with a folder above: some tools say both
		}
	}
	parent, err := u.openParent(dir, true)
	if err != nil {
		return err
	}
	err = unix.Mknodat(parent, name, unix.S_IFCHR, 0)
	if err != unix.EEXIST {
		if err == nil {
			u.whiteouts[full] = true
		}
		return err
	}
	// This layer has it anew. A file hides what is below by itself; a folder must be told to.
	var st unix.Stat_t
	if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return u.setOpaque(full)
	}
	return nil
}

func (u *unpacker) setOpaque(dir string) error {
	fd, err := u.openIn(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("setting %s: %w", opaqueXattr, err)
	}
	return nil
}

// rootEntry gives the layer's root its owner, mode and attributes.
func (u *unpacker) rootEntry(hdr *tar.Header) error {
	fd := int(u.root.Fd())
	if err := u.attributes(fd, hdr); err != nil {
		return err
	}
	u.dirs = append(u.dirs, dirTime{path: "", times: times(hdr)})
	return nil
}

func (u *unpacker) directory(parent int, base, full string, hdr *tar.Header, hidden bool) error {
	if err := unix.Mkdirat(parent, base, 0o700); err != nil && err != unix.EEXIST {
		return err
	}
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if hidden {
		if err := unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0); err != nil {
			return fmt.Errorf("setting %s: %w", opaqueXattr, err)
		}
	}
	u.dirs = append(u.dirs, dirTime{path: full, times: times(hdr)})
	return u.attributes(fd, hdr)
}

func (u *unpacker) file(parent int, base string, hdr *tar.Header, content io.Reader) error {
	fd, err := unix.Openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	err = u.write(f, hdr.Size, content)
	if err == nil {
		err = u.attributes(fd, hdr)
	}
	if err == nil {
		err = setTimes(fd, times(hdr))
	}
	return errors.Join(err, f.Close())
}

// write copies size bytes and leaves holes for zeros.
func (u *unpacker) write(f *os.File, size int64, content io.Reader) error {
	var off, end int64 // end: where the file ends as far as it was written
	for off < size {
		if u.ctx.Err() != nil {
			return context.Cause(u.ctx)
		}
		n, err := fill(content, u.buf[:min(int64(len(u.buf)), size-off)])
		data := u.buf[:n]
		for len(data) > 0 {
			zeros := zeroBlocks(data)
			off += int64(zeros)
			data = data[zeros:]
			run := dataRun(data)
			if run == 0 {
				continue
			}
			if _, err := f.WriteAt(data[:run], off); err != nil {
				return err
			}
			off += int64(run)
			data = data[run:]
			end = off
		}
		if err == io.EOF && off < size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	if end < size {
		return f.Truncate(size)
	}
	return nil
}

// zeroBlocks is the length of the whole blocks of zeros that data begins with.
func zeroBlocks(data []byte) int {
	var zero [sparseBlock]byte
	n := 0
	for len(data)-n >= sparseBlock && bytes.Equal(data[n:n+sparseBlock], zero[:]) {
		n += sparseBlock
	}
	return n
}

// dataRun is the length of what data begins with up to the next block of zeros.
func dataRun(data []byte) int {
	var zero [sparseBlock]byte
	n := 0
	for len(data)-n >= sparseBlock {
		// Most blocks differ from zero in their first bytes: Equal looks no further.
		if n > 0 && bytes.Equal(data[n:n+sparseBlock], zero[:]) {
			return n
		}
		n += sparseBlock
	}
	return len(data)
}

func (u *unpacker) symlink(parent int, base string, hdr *tar.Header) error {
	if err := unix.Symlinkat(hdr.Linkname, parent, base); err != nil {
		return err
	}
	if err := u.chown(hdr, func(uid, gid int) error {
		return unix.Fchownat(parent, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	}); err != nil {
		return err
	}
	ts := times(hdr)
	return unix.UtimesNanoAt(parent, base, ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

func (u *unpacker) hardlink(parent int, base string, hdr *tar.Header) error {
	dir, name, err := u.place(hdr.Linkname)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", brief(hdr.Linkname), err)
	}
	if name == "" {
		return fmt.Errorf("hard link to %q: it is a folder", brief(hdr.Linkname))
	}
	from, err := u.openIn(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", brief(hdr.Linkname), err)
	}
	defer unix.Close(from)
	if err := unix.Linkat(from, name, parent, base, 0); err != nil { // without AT_SYMLINK_FOLLOW
		return fmt.Errorf("hard link to %q: %w", brief(hdr.Linkname), err)
	}
	return nil
}

func (u *unpacker) fifo(parent int, base string, hdr *tar.Header) error {
	if err := unix.Mknodat(parent, base, unix.S_IFIFO|0o600, 0); err != nil {
		return err
	}
	if err := u.chown(hdr, func(uid, gid int) error {
		return unix.Fchownat(parent, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	}); err != nil {
		return err
	}
	if err := unix.Fchmodat(parent, base, uint32(hdr.Mode)&permissionBits, 0); err != nil { // a fifo of ours: no link to follow
		return err
	}
	ts := times(hdr)
	return unix.UtimesNanoAt(parent, base, ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

// attributes sets owner, mode and extended attributes, in that order: chown(2) clears setuid bits and capabilities.
func (u *unpacker) attributes(fd int, hdr *tar.Header) error {
	if err := u.chown(hdr, func(uid, gid int) error { return unix.Fchown(fd, uid, gid) }); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(hdr.Mode)&permissionBits); err != nil {
		return err
	}
	for key, value := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok || !wantedXattr(name) {
			continue
		}
		switch err := unix.Fsetxattr(fd, name, []byte(value), 0); err {
		case nil:
		case unix.ENOTSUP, unix.EPERM:
			u.unsupportedAttrs++ // the file system has none of this kind, or ours are not the rights
		default:
			return fmt.Errorf("setting attribute %q: %w", brief(name), err)
		}
	}
	return nil
}

// wantedXattr tells which attributes a layer may set. Those of overlayfs and of what stands in for it, and whisk's own, would change what a mount shows, trusted.* is
// for the host's root, and labels are the host's policy.
func wantedXattr(name string) bool {
	switch {
	case strings.HasPrefix(name, "user.overlay."), strings.HasPrefix(name, "user.fuseoverlayfs."), strings.HasPrefix(name, "user.containers."),
		strings.HasPrefix(name, "user.whisk."), strings.HasPrefix(name, "trusted."), name == "security.selinux":
		return false
	}
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "security.") || strings.HasPrefix(name, "system.posix_acl_")
}

// unmappedError says that a layer has a file of an id that the user namespace does not have.
type unmappedError struct{ uid, gid int }

// Error implements error.
func (e *unmappedError) Error() string {
	return "its owner " + strconv.Itoa(e.uid) + ":" + strconv.Itoa(e.gid) + " is not among your subordinate ids; see subuid(5)"
}

func (u *unpacker) chown(hdr *tar.Header, chown func(uid, gid int) error) error {
	if u.ignoreChown {
		hdr.Uid, hdr.Gid = 0, 0 // what the one-id map has, and what it is already
		return nil
	}
	err := chown(hdr.Uid, hdr.Gid)
	if err == unix.EINVAL {
		return &unmappedError{uid: hdr.Uid, gid: hdr.Gid}
	}
	return err
}

// times are access and modification time; an archive without the first has it as the second.
func times(hdr *tar.Header) [2]unix.Timespec {
	mod := timespec(hdr.ModTime)
	if hdr.AccessTime.IsZero() {
		return [2]unix.Timespec{mod, mod}
	}
	return [2]unix.Timespec{timespec(hdr.AccessTime), mod}
}

func timespec(t time.Time) unix.Timespec {
	ts, err := unix.TimeToTimespec(t)
	if err != nil || t.IsZero() {
		return unix.Timespec{}
	}
	return ts
}

// setTimes is futimens(3): utimensat(2) without a path.
func setTimes(fd int, ts [2]unix.Timespec) error {
	if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// setDirTimes comes last: a folder's time changes with every entry made in it.
func (u *unpacker) setDirTimes() error {
	u.parent.forget()
	for i := len(u.dirs) - 1; i >= 0; i-- {
		d := u.dirs[i]
		p := d.path
		if p == "" {
			p = "."
		}
		// A later entry may have put something else there, even a link.
		how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: resolveInLayer}
		fd, err := unix.Openat2(int(u.root.Fd()), p, &how)
		if err != nil {
			continue
		}
		err = setTimes(fd, d.times)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("setting the time of %q: %w", d.path, err)
		}
	}
	return nil
}
