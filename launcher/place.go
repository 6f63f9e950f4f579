package launcher

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// place is where a file is in its file system: the same through whichever link or mount it is reached.
type place struct {
	dev  string // "major:minor"
	path string // from the file system's own root
}

// under tells whether p is q or below it, and how p is called from there ("" for q itself).
func (p place) under(q place) (rest string, ok bool) {
	if p.dev != q.dev {
		return "", false
	}
	return pathUnder(p.path, q.path)
}

func pathUnder(p, q string) (rest string, ok bool) {
	if p == q {
		return "", true
	}
	return strings.CutPrefix(p, strings.TrimSuffix(q, "/")+"/")
}

// mountPoint is a line of mountinfo, proc_pid_mountinfo(5).
type mountPoint struct {
	id     int
	place  place  // what is mounted
	at     string // where
	fstype string
}

func parseMountinfo(text string) ([]mountPoint, error) {
	var out []mountPoint
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 10 {
			return nil, fmt.Errorf("mountinfo line %q is too short", line)
		}
		id, err := strconv.Atoi(f[0])
		if err != nil {
			return nil, fmt.Errorf("mountinfo line %q: %w", line, err)
		}
		m := mountPoint{id: id, place: place{f[2], unescapeMount(f[3])}, at: unescapeMount(f[4])}
		for i := 6; i+1 < len(f); i++ {
			if f[i] == "-" {
				m.fstype = f[i+1]
				break
			}
		}
		out = append(out, m)
	}
	return out, nil
}

// unescapeMount undoes the kernel's octal escapes of blank, tab, line feed and backslash.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountTable reads the mounts of the calling thread's namespace.
func mountTable() ([]mountPoint, error) {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	return parseMountinfo(string(text))
}

// found is an open file of the host and where it is.
type found struct {
	fd    int // O_PATH
	dir   bool
	path  string // without links
	place place
	mount int // the mount's id
	dev   uint64
	ino   uint64
}

func (f *found) close() { unix.Close(f.fd) }

var errNoPlace = errors.New("it is no file or folder in this machine's tree")

// find opens a path of the host, following links, and says where that leads.
func find(name string, mounts []mountPoint) (*found, error) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := &found{fd: fd}
	if err := f.look(mounts); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "find", Path: name, Err: err}
	}
	return f, nil
}

func (f *found) look(mounts []mountPoint) error {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return err
	}
	f.dir, f.dev, f.ino = st.Mode&unix.S_IFMT == unix.S_IFDIR, st.Dev, st.Ino
	var err error
	if f.path, err = os.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", f.fd)); err != nil {
		return err
	}
	info, err := os.ReadFile(fmt.Sprintf("/proc/thread-self/fdinfo/%d", f.fd))
	if err != nil {
		return err
	}
	f.mount = -1
	for line := range strings.Lines(string(info)) {
		if id, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			if f.mount, err = strconv.Atoi(strings.TrimSpace(id)); err != nil {
				return err
			}
		}
	}
	for _, m := range mounts {
		if m.id != f.mount {
			continue
		}
		rest, ok := pathUnder(f.path, m.at)
		if !ok || st.Nlink == 0 {
			return errNoPlace
		}
		f.place = place{m.place.dev, path.Join(m.place.path, rest)}
		return nil
	}
	return errNoPlace // a socket, a pipe, or in a mount of somebody else's
}
