package userns

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

// Clash is a part of the user's ranges that somebody else has been given as well: sandboxes of the two could reach
// each other's files.
type Clash struct {
	File        string `json:"file"` // "/etc/subuid"
	Other       string `json:"other"`
	First, Last uint32 // the ids that both have
}

// String is "100000-165535 in /etc/subuid is bob's, too".
func (c Clash) String() string {
	return fmt.Sprintf("%d-%d in %s is given to %s, too", c.First, c.Last, c.File, c.Other)
}

// Clashes lists what of the user's ranges others have, ordered by file and id.
func (s System) Clashes(u User) ([]Clash, error) {
	g, err := s.gather(u)
	if err != nil {
		return nil, err
	}
	var out []Clash
	for _, f := range []struct {
		file    string
		entries []entry
	}{{g.uidFile, g.uidEntries}, {g.gidFile, g.gidEntries}} {
		out = append(out, clashes(f.file, f.entries, u)...)
	}
	return out, nil
}

func clashes(file string, entries []entry, u User) []Clash {
	uid := strconv.FormatUint(uint64(u.UID), 10)
	mine := func(e entry) bool { return e.owner == uid || u.Name != "" && e.owner == u.Name }
	var out []Clash
	for _, e := range entries {
		if !mine(e) {
			continue
		}
		for _, o := range entries {
			from, to := max(e.start, o.start), min(uint64(e.start)+uint64(e.size), uint64(o.start)+uint64(o.size))
			if !mine(o) && uint64(from) < to {
				out = append(out, Clash{File: file, Other: o.owner, First: from, Last: uint32(to - 1)})
			}
		}
	}
	slices.SortFunc(out, func(a, b Clash) int { return cmp.Compare(a.First, b.First) })
	return out
}

// Spare is the first id of a range that nobody has been given, and how many ids a sandbox needs.
func (s System) Spare(u User) (first, count uint64, err error) {
	g, err := s.gather(u)
	if err != nil {
		return 0, 0, err
	}
	return above(g), lent, nil
}
