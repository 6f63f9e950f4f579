package userns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rootless-containers/rootlesskit/v3/pkg/parent/idtools"
	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/mend"
)

// User is whose sandboxes they are.
type User struct {
	Name     string // as in subuid(5); may be empty for a uid without a name
	UID, GID uint32
}

// Current is the user of this process.
func Current() User {
	u := User{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	if account, err := user.LookupId(strconv.Itoa(os.Geteuid())); err == nil {
		u.Name = account.Username
	} else if name := os.Getenv("USER"); plausible(name) && u.UID != 0 {
		// A user of a directory service that the pure-Go resolver does not ask. A wrong name only costs
		// the ranges: newuidmap asks the system itself who is calling.
		u.Name = name
	}
	return u
}

// plausible tells whether text can be a user's name in a line of subuid(5) and of limits.conf(5): a directory service may
// have spaces in the middle of one, but what ends a field or a line would be an entry of somebody else's.
func plausible(text string) bool {
	return text != "" && utf8.ValidString(text) && strings.TrimSpace(text) == text && !strings.HasPrefix(text, "-") && !strings.HasPrefix(text, "#") &&
		strings.IndexFunc(text, func(r rune) bool { return r == ':' || !unicode.IsPrint(r) }) < 0
}

// System is what the map is decided on.
type System struct {
	Files                fs.FS // the root directory
	NewUIDMap, NewGIDMap Helper
	NoNewPrivs           bool // exec gives no privilege any more, prctl(2)
	// Directory asks a directory service for the ranges of a user; asked only where nsswitch.conf(5) says so. An error
	// that is ErrNoGetsubids has a remedy of its own.
	Directory func(User) (uids, gids []idtools.SubIDRange, err error)
}

// Here is this machine.
func Here() System {
	return System{
		Files:     os.DirFS("/"),
		NewUIDMap: look("newuidmap", capSetUID), NewGIDMap: look("newgidmap", capSetGID), NoNewPrivs: noNewPrivs(),
		Directory: askDirectory,
	}
}

// Asks names the directory service that is asked for sub-ids, as nsswitch.conf(5) names it; empty where the files are.
func (s System) Asks() string {
	switched, _ := s.readFile("etc/nsswitch.conf")
	return dynamic(switched)
}

// Find is System.Find on this machine.
func Find(u User) (Map, error) { return Here().Find(u) }

// Find reads what the system grants the user and decides on the map. Too small a range and a helper without
// power are an *Error; a missing entry and a missing helper make the map Single.
func (s System) Find(u User) (Map, error) {
	g, err := s.gather(u)
	if err != nil {
		return Map{}, err
	}
	return plan(g)
}

// gather reads the files that plan decides on.
func (s System) gather(u User) (grants, error) {
	g := grants{user: u, distro: mend.Read(s.Files)}
	uids, err := s.readFile("etc/subuid")
	if err != nil {
		return g, err
	}
	gids, err := s.readFile("etc/subgid")
	if err != nil {
		return g, err
	}
	g.uidEntries, g.gidEntries = parseEntries(uids), parseEntries(gids)
	if u.UID == 0 {
		own, err := s.readFile("proc/self/uid_map")
		if err != nil {
			return g, err
		}
		ownGroups, err := s.readFile("proc/self/gid_map")
		if err != nil {
			return g, err
		}
		g.ownUIDs, g.ownGIDs = parseOwn(own), parseOwn(ownGroups)
		return g, nil
	}
	g.uidFile, g.gidFile = "/etc/subuid", "/etc/subgid"
	switched, err := s.readFile("etc/nsswitch.conf")
	if err != nil {
		return g, err
	}
	if source := dynamic(switched); source != "" && s.Directory != nil {
		g.directory = source
		g.fromDirectory(s.Directory)
	}
	g.uidHelper, g.gidHelper, g.noNewPrivs = s.NewUIDMap, s.NewGIDMap, s.NoNewPrivs
	return g, nil
}

// readFile reads a file that may be absent.
func (s System) readFile(path string) (string, error) {
	text, err := fs.ReadFile(s.Files, path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading id ranges: %w", err)
	}
	return string(text), nil
}

// Capability numbers, capabilities(7).
const (
	capSetGID = 6
	capSetUID = 7
)

// Helper is newuidmap or newgidmap, which write a map for us.
type Helper struct {
	Path   string `json:"path,omitempty"`   // absolute; empty: not found
	SetUID bool   `json:"setuid,omitempty"` // setuid, and root's
	Caps   bool   `json:"caps,omitempty"`   // has the file capability it needs
	// NoSUID is the mount that it is on, if that is mounted nosuid, which takes both away; else empty.
	NoSUID string `json:"nosuid,omitempty"`
}

// look finds a helper: on PATH, and in the places where it is when PATH is poor, as in a service.
func look(name string, capability uint) Helper {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/bin/", "/bin/", "/usr/sbin/", "/run/wrappers/bin/"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(dir + name)
	}
	if err != nil {
		return Helper{}
	}
	h := Helper{Path: path}
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil {
		h.SetUID = st.Mode&unix.S_ISUID != 0 && st.Uid == 0
	}
	var fsys unix.Statfs_t
	if unix.Statfs(path, &fsys) == nil && fsys.Flags&unix.ST_NOSUID != 0 {
		h.NoSUID = mountOf(path)
	}
	// struct vfs_cap_data: magic, then the low words of permitted and inheritable (linux/capability.h).
	data := make([]byte, 24)
	if n, err := unix.Getxattr(path, "security.capability", data); err == nil && n >= 12 {
		h.Caps = data[4]&(1<<capability) != 0
	}
	return h
}

// mountOf is the nearest folder above a file that is the root of a mount.
func mountOf(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	for path != "/" {
		var st unix.Statx_t
		if unix.Statx(unix.AT_FDCWD, path, 0, 0, &st) == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
			break
		}
		path = filepath.Dir(path)
	}
	return path
}

func noNewPrivs() bool {
	v, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && v == 1
}
