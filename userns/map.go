package userns

import (
	"fmt"
	"strings"
)

// Range maps a run of ids: one line of /proc/PID/uid_map, user_namespaces(7).
type Range struct {
	Inside  uint32 `json:"inside"`  // first id in the namespace
	Outside uint32 `json:"outside"` // first id it stands for in the namespace whisk was started in
	Size    uint32 `json:"size"`    // how many ids, at least 1
}

// Map says which ids of the host the ids inside stand for. Its value is plain data: it may be copied, compared by
// its parts and sent as JSON.
type Map struct {
	UIDs []Range `json:"uids"`
	GIDs []Range `json:"gids"`
	// Single: only id 0 is mapped, and setgroups(2) is denied inside (the kernel demands it of whoever maps
	// a group without the privilege to).
	Single bool `json:"single,omitempty"`
	// Why tells why the map is Single; nil when it is not.
	Why *Missing `json:"why,omitempty"`
}

// Missing is what a one-id map lacks: a person reads it once.
type Missing struct {
	Cause  Cause  `json:"cause"`
	What   string `json:"what"`   // "/etc/subuid has no range for ann"
	Cost   string `json:"cost"`   // what does not work for lack of it
	Remedy string `json:"remedy"` // the command that mends it; empty if none does
}

// String is the one line to show.
func (m *Missing) String() string { return m.What + ": " + m.Cost }

// Hint is the command that mends it, or empty.
func (m *Missing) Hint() string { return m.Remedy }

// HostUID is the host's user id that a user id inside stands for; false when it stands for none.
func (m Map) HostUID(inside uint32) (uint32, bool) { return outside(m.UIDs, inside) }

// HostGID is the host's group id that a group id inside stands for; false when it stands for none.
func (m Map) HostGID(inside uint32) (uint32, bool) { return outside(m.GIDs, inside) }

// InsideUID is the user id inside that stands for a user id of the host; false when none does, and a file of that
// owner then shows as the overflow id 65534 inside.
func (m Map) InsideUID(host uint32) (uint32, bool) { return inside(m.UIDs, host) }

// InsideGID is the group id inside that stands for a group id of the host; false when none does.
func (m Map) InsideGID(host uint32) (uint32, bool) { return inside(m.GIDs, host) }

func outside(ranges []Range, id uint32) (uint32, bool) {
	for _, r := range ranges {
		if id >= r.Inside && id-r.Inside < r.Size {
			return r.Outside + (id - r.Inside), true
		}
	}
	return 0, false
}

func inside(ranges []Range, id uint32) (uint32, bool) {
	for _, r := range ranges {
		if id >= r.Outside && id-r.Outside < r.Size {
			return r.Inside + (id - r.Outside), true
		}
	}
	return 0, false
}

// String shows the map as people read it: "0→1000 1-65536→100000-165535", and the groups behind a slash where they
// differ.
func (m Map) String() string {
	uids, gids := show(m.UIDs), show(m.GIDs)
	if uids == gids {
		return uids
	}
	return uids + " / " + gids
}

func show(ranges []Range) string {
	var b strings.Builder
	for i, r := range ranges {
		if i > 0 {
			b.WriteByte(' ')
		}
		if r.Size == 1 {
			fmt.Fprintf(&b, "%d→%d", r.Inside, r.Outside)
			continue
		}
		fmt.Fprintf(&b, "%d-%d→%d-%d", r.Inside, r.Inside+r.Size-1, r.Outside, r.Outside+(r.Size-1))
	}
	return b.String()
}

// lines is the text of uid_map or gid_map.
func lines(ranges []Range) string {
	var b strings.Builder
	for _, r := range ranges {
		fmt.Fprintf(&b, "%d %d %d\n", r.Inside, r.Outside, r.Size)
	}
	return b.String()
}
