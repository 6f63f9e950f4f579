package launcher

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/procfs"
	"github.com/whisk-sandbox/whisk/internal/wall"
)

// A target that was right when it was opened may be another place by the time of the mount: so what has been mounted is
// looked at again, by the mount's own descriptor (CVE-2025-31133, -52565, -52881).

// place moves a mount that the user or the image asked for onto a handle and closes both. A folder that a volume's other
// sandboxes have moved meanwhile is a place as good as another, as long as it is one of this sandbox's.
func (r root) place(name string, mount, target int) error {
	defer unix.Close(mount)
	defer unix.Close(target)
	if err := move(mount, target); err != nil {
		return err
	}
	return r.foreign(name, mount)
}

// settle moves a mount of whisk's own onto a handle and closes both. It has to lie where its name says. An fstype of 0 is any.
func (r root) settle(name string, mount, target int, fstype int64) error {
	defer unix.Close(mount)
	defer unix.Close(target)
	if err := move(mount, target); err != nil {
		return err
	}
	return r.settled(name, mount, fstype)
}

// settled tells whether what a name leads to, without links, is the top of this mount, and its file system of the type.
func (r root) settled(name string, mount int, fstype int64) error {
	if !wall.Up("checks of mounts") {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(mount, &fs); err != nil {
		return fmt.Errorf("look at mount %s: %w", name, err)
	}
	if fstype != 0 && int64(fs.Type) != fstype {
		return fmt.Errorf("what was mounted on %s is of a file system %#x, want %#x", name, fs.Type, fstype)
	}
	fd, err := r.openat2(name, unix.O_PATH|unix.O_NOFOLLOW, 0, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return fmt.Errorf("look at mount %s: %w", name, err)
	}
	defer unix.Close(fd)
	want, err := mountedAs(mount)
	if err != nil {
		return fmt.Errorf("look at mount %s: %w", name, err)
	}
	got, err := mountedAs(fd)
	if err == nil && got != want {
		err = fmt.Errorf("what lies on %s is not what was mounted there", name)
	}
	return err
}

// mounted says which file of which mount a descriptor is.
type mounted struct{ mount, inode uint64 }

func mountedAs(fd int) (mounted, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_MNT_ID, &st); err != nil {
		return mounted{}, err
	}
	return mounted{st.Mnt_id, st.Ino}, nil
}

// isDevice tells whether a descriptor is the node that one looks for under that name.
func isDevice(fd int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at %s: %w", name, err)
	}
	if d := deviceNumbers[name]; st.Mode&unix.S_IFMT != unix.S_IFCHR || uint64(st.Rdev) != unix.Mkdev(d[0], d[1]) {
		return &Error{Message: fmt.Sprintf("this machine's /dev/%s is not the device %d:%d", name, d[0], d[1]), Hint: "see it: ls -l /dev/" + name, Exit: ExitWhisk}
	}
	return nil
}

// deviceNumbers are the kernel's, Documentation/admin-guide/devices.txt.
var deviceNumbers = map[string][2]uint32{"null": {1, 3}, "zero": {1, 5}, "full": {1, 7}, "random": {1, 8}, "urandom": {1, 9}, "tty": {5, 0}}

const atCWD = uintptr(1<<64 - 100) // AT_FDCWD

// openProc opens the top of the /proc in sight and makes sure that it is the kernel's. fd is the lowest that is free.
func (s *script) openProc(fd int) {
	s.add("open /proc", mustWork, unix.SYS_OPENAT, atCWD, "/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	fs, st := new(unix.Statfs_t), new(unix.Stat_t)
	at := s.word(fs)
	s.add("look at /proc", mustWork, unix.SYS_FSTATFS, fd, at)
	s.add("/proc is not the kernel's", mustWork, compare, at+unsafe.Offsetof(fs.Type), unix.PROC_SUPER_MAGIC)
	at = s.word(st)
	s.add("look at /proc", mustWork, unix.SYS_FSTAT, fd, at)
	s.add("/proc is not the kernel's", mustWork, compare, at+unsafe.Offsetof(st.Ino), procfs.RootInode)
}

// writeProc writes to a file below /proc, on which nobody may have mounted anything. fd and the one after it are the lowest
// that are free, and are so again afterwards.
func (s *script) writeProc(what, name, text string, fd int) {
	if !wall.Up("checks of /proc") {
		s.add("open /proc/"+name, mustWork, unix.SYS_OPENAT, atCWD, "/proc/"+name, unix.O_WRONLY, 0)
	} else {
		s.openProc(fd)
		s.add("open /proc/"+name, mustWork, unix.SYS_OPENAT2, fd, name, procHow(), unix.SizeofOpenHow)
		s.add("close /proc", mustWork, unix.SYS_DUP3, fd+1, fd, 0)
		s.add("close /proc", mustWork, unix.SYS_CLOSE, fd+1)
	}
	s.add(what, mustWork, unix.SYS_WRITE, fd, text, len(text))
	s.add("close /proc/"+name, mustWork, unix.SYS_CLOSE, fd)
}

// procHow crosses no mount: what lies over a file is not the file.
func procHow() *unix.OpenHow {
	return &unix.OpenHow{Flags: unix.O_WRONLY, Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_BENEATH}
}
