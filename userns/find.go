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
func Find(u User) (Map, error) { return Here().Find(u) }

// Find is what the function of that name does, on this machine.
func (m Machine) Find(u User) (Map, error) {
	g, err := m.gather(u)
	if err != nil {
		return Map{}, err
	}
	return plan(g)
}

// gather reads the files that plan decides on.
func (m Machine) gather(u User) (grants, error) {
	g := grants{user: u, system: m.system()}
	uids, err := readFile(m.Root, "etc/subuid")
	if err != nil {
		return g, err
	}
	gids, err := readFile(m.Root, "etc/subgid")
	if err != nil {
		return g, err
	}
	g.uidEntries, g.gidEntries = parseEntries(uids), parseEntries(gids)
	if u.UID == 0 {
		own, err := readFile(m.Root, "proc/self/uid_map")
		if err != nil {
			return g, err
		}
		ownGroups, err := readFile(m.Root, "proc/self/gid_map")
		if err != nil {
			return g, err
		}
		g.ownUIDs, g.ownGIDs = parseOwn(own), parseOwn(ownGroups)
		return g, nil
	}
	g.uidFile, g.gidFile = "/etc/subuid", "/etc/subgid"
	switched, err := readFile(m.Root, "etc/nsswitch.conf")
	if err != nil {
		return g, err
	}
	if dynamic(switched) && m.ranges != nil {
		if us, gs, err := m.ranges(u); err == nil {
			g.uidFile, g.gidFile = "subid in /etc/nsswitch.conf", "subid in /etc/nsswitch.conf"
			g.uidEntries, g.gidEntries = us, gs
		}
	}
	if m.Helper != nil {
		g.uidHelper, g.gidHelper = m.Helper("newuidmap"), m.Helper("newgidmap")
	}
	g.noNewPrivs = m.NoNewPrivs
	return g, nil
}

// getsubids asks for ranges of a directory service (SSSD, LDAP): getsubids(1) is shadow's own way.
func getsubids(u User) (uids, gids []entry, err error) {
	us, gs, err := dynidtools.GetSubIDRanges(int(u.UID), u.Name)
	if err != nil {
		return nil, nil, err
	}
	return fromSource(us, u), fromSource(gs, u), nil
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
func readFile(root fs.FS, path string) (string, error) {
	text, err := fs.ReadFile(root, path)
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

// Helper is a program that writes a map for us: newuidmap or newgidmap.
type Helper struct {
	Path   string // absolute; empty: not found
	Setuid bool   // and root's
	Caps   bool   // has the file capability it needs
	NoSUID bool   // its file system is mounted nosuid, which takes both away
}

// look finds a helper: on PATH, and in the places where it is when PATH is poor, as in a service.
func look(name string) Helper {
	capability := uint(capSetUID)
	if name == "newgidmap" {
		capability = capSetGID
	}
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
		h.Setuid = st.Mode&unix.S_ISUID != 0 && st.Uid == 0
	}
	var fsys unix.Statfs_t
	if unix.Statfs(path, &fsys) == nil {
		h.NoSUID = fsys.Flags&unix.ST_NOSUID != 0
	}
	// struct vfs_cap_data: magic, then the low words of permitted and inheritable (linux/capability.h).
	data := make([]byte, 24)
	if n, err := unix.Getxattr(path, "security.capability", data); err == nil && n >= 12 {
		h.Caps = data[4]&(1<<capability) != 0
	}
	return h
}

func noNewPrivs() bool {
	v, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && v == 1
}
