package doctor

import (
	"slices"

	"github.com/whisk-sandbox/whisk/mend"
)

// Level is how bad a finding is.
type Level string

// The levels, the worst first.
const (
	Problem Level = "problem" // no sandbox starts
	Note    Level = "note"    // sandboxes start, and something is lost or will be
	OK      Level = "ok"
)

// Finding is one thing that sandboxes need.
type Finding struct {
	Check string `json:"check"` // what was looked at: "user namespaces"
	Level Level  `json:"level"`
	Cause string `json:"cause,omitempty"` // one word for programs: "clone-off"
	Found string `json:"found"`           // one line
	Lost  string `json:"lost,omitempty"`  // what does not work for it
	Mend  string `json:"mend,omitempty"`  // what to type, or empty where nobody can mend it
	Then  string `json:"then,omitempty"`  // what is to be done for the mend to count

	repair repair
	flag   string // of run and up, with which a sandbox starts in spite of this problem
}

// without has the finding say with which flag sandboxes start all the same.
func (f *Finding) without(flag string) {
	f.flag, f.Lost = flag, noSandbox+" without "+flag
}

// Report is what was found, the worst first.
type Report struct {
	OK       bool        `json:"ok"` // sandboxes can run
	Whisk    string      `json:"whisk"`
	Kernel   string      `json:"kernel"`
	Distro   mend.Distro `json:"distribution"`
	Findings []Finding   `json:"findings"`

	exe string
}

// anew is Then of what a login is given when it begins.
const anew = "log in anew"

// probe looks at one thing.
type probe func(*Machine, mend.Distro) []Finding

// Examine runs the probes. It is a pure function of the machine.
func Examine(m *Machine) Report {
	d := mend.Read(m.Files)
	r := Report{OK: true, Whisk: m.Whisk, Kernel: m.Kernel, Distro: d, exe: m.Exe}
	// Causes before what they cause: the first problem is the one to mend first.
	for _, look := range []probe{
		userNamespaces, otherNamespaces, subIDs, idHelpers, overlay, store, space, seccompFilters, landlockFence, tracing,
		nfTables, ping, lowPorts, cgroups, login, limits, clock, readOnly, outer, versions,
	} {
		r.Findings = append(r.Findings, look(m, d)...)
	}
	rank := []Level{Problem, Note, OK}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return slices.Index(rank, a.Level) - slices.Index(rank, b.Level) })
	r.OK = len(r.Findings) == 0 || r.Findings[0].Level != Problem
	return r
}
