package doctor

import (
	"cmp"
	"slices"

	"github.com/whisk-sandbox/whisk/remedy"
)

// Mark is how a finding stands.
type Mark string

// The marks, best first.
const (
	OK      Mark = "ok"
	Note    Mark = "note"    // sandboxes run, with something lost
	Problem Mark = "problem" // no sandbox runs
)

// Finding is what was found of one thing that a sandbox needs.
type Finding struct {
	Name  string     `json:"name"` // of the thing: "user namespaces"
	Mark  Mark       `json:"mark"`
	Found string     `json:"found"`           // one line, lower case
	Lost  string     `json:"lost,omitempty"`  // what does not work without it; empty for OK
	Cause string     `json:"cause,omitempty"` // userns.Cause where it is one
	Fix   remedy.Fix `json:"-"`
	// Remedy is Fix.Line: the command that mends it; empty where none is known.
	Remedy string `json:"remedy,omitempty"`
}

func ok(name, found string) Finding { return Finding{Name: name, Mark: OK, Found: found} }

func note(name, found, lost string, fix remedy.Fix) Finding {
	return Finding{Name: name, Mark: Note, Found: found, Lost: lost, Fix: fix, Remedy: fix.Line}
}

func problem(name, found string, fix remedy.Fix) Finding {
	return Finding{Name: name, Mark: Problem, Found: found, Lost: "no sandbox runs", Fix: fix, Remedy: fix.Line}
}

// Examine runs all probes. The findings are in the order in which they are worth reading: problems, notes, and what is
// well, each in the order of probes, so that a cause stands before what follows from it.
func Examine(v View) []Finding {
	var all []Finding
	for _, probe := range probes() {
		all = append(all, probe(v)...)
	}
	rank := map[Mark]int{Problem: 0, Note: 1, OK: 2}
	slices.SortStableFunc(all, func(a, b Finding) int { return cmp.Compare(rank[a.Mark], rank[b.Mark]) })
	return all
}

// Broken tells whether a problem is among the findings.
func Broken(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.Mark == Problem })
}

// Script is the shell script for root that mends what root can, remedy.Script.
func Script(findings []Finding) string {
	var fixes []remedy.Fix
	for _, f := range findings {
		fixes = append(fixes, f.Fix)
	}
	return remedy.Script(fixes)
}

// probe finds out about one thing. It asks nothing but the View.
type probe func(View) []Finding

func probes() []probe {
	return []probe{
		versions, userNamespaces, subIDs, clash, store, storeHealth, disk, seccomp, landlock, tproxy, cgroups, userSystemd,
		pings, lowPorts, inotify, descriptors, clock,
	}
}
