package userns

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/whisk-sandbox/whisk/mend"
)

const (
	// lent is how many ids a sandbox has beside 0. Images count on nobody (65534) and nogroup, and
	// useradd(8) gives 65536.
	lent = 65536
	// rootBase is where root's sandboxes have their ids: above those that distributions hand out to people,
	// services, sub-id ranges and containers (systemd's "Users, Groups, UIDs and GIDs" ends at 0x6FFFFFFF).
	// A fixed place, because files in the store keep their owners when somebody is added to subuid(5).
	rootBase = 0x70000000
	// maxID is one above the last id; 4294967295 is (uid_t)-1, "no change" in chown(2).
	maxID = 1<<32 - 1
)

const oneIDCost = "sandboxes have one id only, so files keep no owners, and users inside are not kept apart"

// entry is a line of subuid(5) or subgid(5).
type entry struct {
	owner       string // a name or a number
	start, size uint32 // start+size does not overflow
}

// grants are the facts that the map is planned from.
type grants struct {
	user                   User
	distro                 mend.Distro // whose words the remedies are in
	uidEntries, gidEntries []entry     // all of them, also of others
	uidFile, gidFile       string      // where they are written, for messages
	uidHelper, gidHelper   Helper
	directory              string  // asked in place of the files, as nsswitch.conf(5) names it; "" if none is
	silent                 error   // why it gave no answer
	noNewPrivs             bool    // exec gives no privilege any more, prctl(2)
	ownUIDs, ownGIDs       []Range // root only: the maps of the namespace whisk itself is in
}

// plan decides on the map.
func plan(g grants) (Map, error) {
	m := Map{
		UIDs: []Range{{Inside: 0, Outside: g.user.UID, Size: 1}},
		GIDs: []Range{{Inside: 0, Outside: g.user.GID, Size: 1}},
	}
	if g.user.UID == 0 {
		base, ok := spare(g)
		if !ok {
			return m.single(&Missing{CauseNoRange, fmt.Sprintf("the container that whisk runs in has no %d ids to spare", lent), oneIDCost, ""}), nil
		}
		m.UIDs = append(m.UIDs, Range{1, base, lent})
		m.GIDs = append(m.GIDs, Range{1, base, lent})
		return m, nil
	}

	uids, gids := own(g.uidEntries, g.user, g.user.UID), own(g.gidEntries, g.user, g.user.GID)
	add := g.distro.SubIDs(g.user.String(), above(g), lent)
	if why := g.withoutRange(uids, gids); why != nil {
		return m.single(why), nil
	}
	if g.directory != "" {
		add = g.distro.DirectoryRange(g.directory, g.user.String(), lent)
	}
	switch {
	case len(uids) == 0:
		return m.single(&Missing{CauseNoRange, fmt.Sprintf("%s has no range for %s", g.uidFile, g.user), oneIDCost, add}), nil
	case len(gids) == 0:
		return m.single(&Missing{CauseNoRange, fmt.Sprintf("%s has no range for %s", g.gidFile, g.user), oneIDCost, add}), nil
	}
	for _, h := range []struct {
		name string
		Helper
	}{{"newuidmap", g.uidHelper}, {"newgidmap", g.gidHelper}} {
		if h.Path == "" {
			return m.single(HelperMissing(h.name+" is", g.distro)), nil
		}
	}
	for _, s := range []struct {
		file   string
		ranges []Range
	}{{g.uidFile, uids}, {g.gidFile, gids}} {
		if n := total(s.ranges); n < lent {
			return Map{}, &Error{Cause: CauseRangeTooSmall, Remedy: add,
				Message: fmt.Sprintf("range too small: %s gives %s %d ids, and a sandbox needs %d", s.file, g.user, n, lent)}
		}
	}
	for _, h := range []Helper{g.uidHelper, g.gidHelper} {
		if err := h.Power(g.noNewPrivs, g.distro); err != nil {
			return Map{}, err
		}
	}
	m.UIDs, m.GIDs = append(m.UIDs, lay(uids)...), append(m.GIDs, lay(gids)...)
	return m, nil
}

func (m Map) single(why *Missing) Map {
	m.Single, m.Why = true, why
	return m
}

// HelperMissing is what a machine without newuidmap or newgidmap lacks; which is "newuidmap is", or both of them "are".
func HelperMissing(which string, d mend.Distro) *Missing {
	return &Missing{CauseHelperMissing, which + " not installed", oneIDCost, d.Install(mend.IDHelpers)}
}

// Power checks that a helper can do more than whisk itself; nil if it can.
func (h Helper) Power(noNewPrivs bool, d mend.Distro) *Error {
	switch {
	case !h.SetUID && !h.Caps:
		return &Error{Cause: CauseHelperPowerless, Message: h.Path + " is neither setuid root nor has file capabilities", Remedy: d.SetUID(h.Path)}
	case h.NoSUID != "":
		return &Error{Cause: CauseHelperPowerless, Message: fmt.Sprintf("%s is on a file system mounted nosuid (%s)", h.Path, h.NoSUID), Remedy: d.SUIDMount(h.NoSUID)}
	case noNewPrivs:
		return &Error{Cause: CauseHelperPowerless, Message: h.Path + " has no power here: no_new_privs is set on this process", Remedy: "start whisk outside of the service or container that sets it (NoNewPrivileges=no)"}
	}
	return nil
}

// own picks the user's ranges, merged, without the host's root and without self, which id 0 stands for already: the
// kernel refuses a map that has an id twice.
func own(entries []entry, u User, self uint32) []Range {
	uid := strconv.FormatUint(uint64(u.UID), 10)
	var spans [][2]uint64 // from, to (exclusive)
	for _, e := range entries {
		if (u.Name == "" || e.owner != u.Name) && e.owner != uid {
			continue
		}
		from, to := max(uint64(e.start), 1), uint64(e.start)+uint64(e.size)
		if s := uint64(self); from <= s && s < to {
			spans = append(spans, [2]uint64{from, s}, [2]uint64{s + 1, to})
			continue
		}
		spans = append(spans, [2]uint64{from, to})
	}
	slices.SortStableFunc(spans, func(a, b [2]uint64) int { return cmp.Compare(a[0], b[0]) })
	var out []Range
	var end uint64
	for _, s := range spans {
		s[0] = max(s[0], end) // what overlaps counts once; what only touches stays apart, as newuidmap checks it entry by entry
		if s[0] < s[1] {
			out = append(out, Range{Outside: uint32(s[0]), Size: uint32(s[1] - s[0])})
			end = s[1]
		}
	}
	return out
}

func total(ranges []Range) uint64 {
	var n uint64
	for _, r := range ranges {
		n += uint64(r.Size)
	}
	return n
}

// lay puts ranges one after the other from inside id 1, as many ids as a sandbox has.
func lay(ranges []Range) []Range {
	var out []Range
	next := uint32(1)
	for _, r := range ranges {
		size := min(r.Size, lent+1-next)
		if size == 0 {
			break
		}
		out = append(out, Range{Inside: next, Outside: r.Outside, Size: size})
		next += size
	}
	return out
}

// spare finds lent ids that nobody has, the same for users and groups: at rootBase, or behind the ranges that lie
// there; in a container, the last ids that the container has.
func spare(g grants) (uint32, bool) {
	base := uint64(rootBase)
	taken := slices.Concat(g.uidEntries, g.gidEntries)
	slices.SortFunc(taken, func(a, b entry) int { return cmp.Compare(a.start, b.start) })
	for _, e := range taken {
		if from, to := uint64(e.start), uint64(e.start)+uint64(e.size); from < base+lent && base < to {
			base = to
		}
	}
	if base+lent <= maxID && covers(g.ownUIDs, base) && covers(g.ownGIDs, base) {
		return uint32(base), true
	}
	for _, r := range slices.Backward(g.ownUIDs) {
		top := uint64(r.Inside) + uint64(r.Size)
		if top < 2*lent {
			continue // the first 65536 are the container's own people and services
		}
		at := top - lent
		free := !slices.ContainsFunc(taken, func(e entry) bool {
			return uint64(e.start) < at+lent && at < uint64(e.start)+uint64(e.size)
		})
		if free && covers(g.ownUIDs, at) && covers(g.ownGIDs, at) {
			return uint32(at), true
		}
	}
	return 0, false
}

func covers(own []Range, base uint64) bool {
	return slices.ContainsFunc(own, func(r Range) bool {
		return uint64(r.Inside) <= base && base+lent <= uint64(r.Inside)+uint64(r.Size)
	})
}

// above is the first id of a range for usermod(8) behind all that are given.
func above(g grants) uint64 {
	free := uint64(100000) // SUB_UID_MIN, login.defs(5)
	for _, e := range slices.Concat(g.uidEntries, g.gidEntries) {
		free = max(free, uint64(e.start)+uint64(e.size))
	}
	return free
}

// String is the user's name, or the number of one without.
func (u User) String() string {
	if u.Name != "" {
		return u.Name
	}
	return strconv.FormatUint(uint64(u.UID), 10)
}

// parseEntries reads subuid(5). Lines that are not entries are passed over, as shadow passes over them: a slip in
// somebody else's line must not take this user's ranges away.
func parseEntries(text string) []entry {
	var out []entry
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) != 3 || fields[0] == "" || strings.HasPrefix(fields[0], "#") {
			continue
		}
		start, err1 := strconv.ParseUint(fields[1], 10, 32)
		size, err2 := strconv.ParseUint(fields[2], 10, 32)
		if err1 != nil || err2 != nil || size == 0 || start+size > maxID {
			continue
		}
		out = append(out, entry{fields[0], uint32(start), uint32(size)})
	}
	return out
}

// parseOwn reads /proc/self/uid_map.
func parseOwn(text string) []Range {
	var out []Range
	for line := range strings.Lines(text) {
		var r Range
		if n, err := fmt.Sscan(line, &r.Inside, &r.Outside, &r.Size); n == 3 && err == nil {
			out = append(out, r)
		}
	}
	return out
}
