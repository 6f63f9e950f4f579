package userns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"

	"github.com/rootless-containers/rootlesskit/v3/pkg/parent/dynidtools"
	"github.com/rootless-containers/rootlesskit/v3/pkg/parent/idtools"
	"golang.org/x/sys/unix"
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
	} else if name := os.Getenv("USER"); name != "" && u.UID != 0 {
		// A user of a directory service that the pure-Go resolver does not ask. A wrong name only costs
		// the ranges: newuidmap asks the system itself who is calling.
		u.Name = name
	}
	return u
}

// Find reads what the system grants the user and decides on the map. Too small a range and a helper without
// power are an *Error; a missing entry and a missing helper make the map Single.
func Find(u User) (Map, error) {
	g, err := gather(u)
	if err != nil {
		return Map{}, err
	}
	return plan(g)
}

// gather reads the files that plan decides on.
func gather(u User) (grants, error) {
	g := grants{user: u}
	uids, err := readFile("/etc/subuid")
	if err != nil {
		return g, err
	}
	gids, err := readFile("/etc/subgid")
	if err != nil {
		return g, err
	}
	g.uidEntries, g.gidEntries = parseEntries(uids), parseEntries(gids)
	if u.UID == 0 {
		own, err := readFile("/proc/self/uid_map")
		if err != nil {
			return g, err
		}
		ownGroups, err := readFile("/proc/self/gid_map")
		if err != nil {
			return g, err
		}
		g.ownUIDs, g.ownGIDs = parseOwn(own), parseOwn(ownGroups)
		return g, nil
	}
	g.uidFile, g.gidFile = "/etc/subuid", "/etc/subgid"
	switched, err := readFile("/etc/nsswitch.conf")
	if err != nil {
		return g, err
	}
	if dynamic(switched) {
		// Ranges of a directory service (SSSD, LDAP): getsubids(1) is shadow's own way to ask for them.
		us, gs, err := dynidtools.GetSubIDRanges(int(u.UID), u.Name)
		if err == nil {
			g.uidFile, g.gidFile = "subid in /etc/nsswitch.conf", "subid in /etc/nsswitch.conf"
			g.uidEntries, g.gidEntries = fromSource(us, u), fromSource(gs, u)
		}
	}
	g.uidHelper, g.gidHelper = look("newuidmap", capSetUID), look("newgidmap", capSetGID)
	g.noNewPrivs = noNewPrivs()
	return g, nil
}

func fromSource(ranges []idtools.SubIDRange, u User) []entry {
	var out []entry
	for _, r := range ranges {
		if r.Start >= 0 && r.Length > 0 && int64(r.Start)+int64(r.Length) <= maxID {
			out = append(out, entry{owner: strconv.FormatUint(uint64(u.UID), 10), start: uint32(r.Start), size: uint32(r.Length)})
		}
	}
	return out
}

// readFile reads a file that may be absent.
func readFile(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading id ranges: %w", err)
	}
	return string(text), nil
}

// dynamic tells whether nsswitch.conf(5) sends questions about sub-ids elsewhere than to the files.
func dynamic(nsswitch string) bool {
	for line := range strings.Lines(nsswitch) {
		line, _, _ = strings.Cut(line, "#")
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "subid:"); ok {
			source := strings.Fields(rest)
			return len(source) > 0 && source[0] != "files"
		}
	}
	return false
}

// Capability numbers, capabilities(7).
const (
	capSetGID = 6
	capSetUID = 7
)

// helper is a program that writes a map for us.
type helper struct {
	path   string // absolute; empty: not found
	root   bool   // setuid, and root's
	caps   bool   // has the file capability it needs
	nosuid bool   // its file system is mounted nosuid, which takes both away
}

// look finds a helper: on PATH, and in the places where it is when PATH is poor, as in a service.
func look(name string, capability uint) helper {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/bin/", "/bin/", "/usr/sbin/", "/run/wrappers/bin/"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(dir + name)
	}
	if err != nil {
		return helper{}
	}
	h := helper{path: path}
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil {
		h.root = st.Mode&unix.S_ISUID != 0 && st.Uid == 0
	}
	var fsys unix.Statfs_t
	if unix.Statfs(path, &fsys) == nil {
		h.nosuid = fsys.Flags&unix.ST_NOSUID != 0
	}
	// struct vfs_cap_data: magic, then the low words of permitted and inheritable (linux/capability.h).
	data := make([]byte, 24)
	if n, err := unix.Getxattr(path, "security.capability", data); err == nil && n >= 12 {
		h.caps = data[4]&(1<<capability) != 0
	}
	return h
}

func noNewPrivs() bool {
	v, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && v == 1
}
