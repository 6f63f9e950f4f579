package doctor

import (
	"errors"
	"strings"

	"github.com/whisk-sandbox/whisk/mend"
	"github.com/whisk-sandbox/whisk/userns"
)

const noSandbox = "no sandbox starts"

// userNamespaces tells of the kernel's own word on them, with the words that every command has for it.
func userNamespaces(m *Machine, d mend.Distro) []Finding {
	f := Finding{Check: "user namespaces"}
	switch {
	case m.Refused != nil:
		e := m.Refused.Explain(d)
		f.Level, f.Cause, f.Found, f.Lost, f.Mend = Problem, string(e.Cause), e.Error(), noSandbox, e.Remedy
		switch e.Cause {
		case userns.CauseCloneOff:
			f.repair.sysctl("kernel.unprivileged_userns_clone", "1")
		case userns.CauseMaxZero, userns.CauseExhausted:
			f.repair.sysctl("user.max_user_namespaces", "28633")
		case userns.CauseAppArmor:
			switch {
			case m.Refused.ProfileFile != "":
				f.repair.add(mend.LiftAsRoot(m.Refused.ProfileFile)...)
			case m.Refused.Restricted == "1":
				f.repair.profile = true
			}
		}
	case m.Stage != nil && !ofHelpers(m.Stage.Cause):
		f.Level, f.Cause, f.Found, f.Lost, f.Mend = Problem, string(m.Stage.Cause), m.Stage.Message, noSandbox, m.Stage.Remedy
	default:
		f.Level, f.Found = OK, "open to you"
		if n := m.sysctl("user.max_user_namespaces"); n != "" {
			f.Found += ", at most " + n
		}
	}
	return []Finding{f}
}

// ofHelpers tells whether a cause is newuidmap's and newgidmap's, or the ranges'.
func ofHelpers(c userns.Cause) bool {
	switch c {
	case userns.CauseHelperMissing, userns.CauseHelperPowerless, userns.CauseHelperRefused, userns.CauseNoRange, userns.CauseRangeTooSmall,
		userns.CauseDirectoryNoRange, userns.CauseDirectorySilent:
		return true
	}
	return false
}

// otherNamespaces are those that a sandbox has beside a user namespace; each kind has its limit (namespaces(7)).
func otherNamespaces(m *Machine, d mend.Distro) []Finding {
	var out []Finding
	for _, kind := range []string{"mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		name := "user.max_" + kind + "_namespaces"
		if m.sysctl(name) == "0" {
			f := Finding{Check: kind + " namespaces", Level: Problem, Cause: "max-zero", Found: name + " is 0", Lost: noSandbox, Mend: d.Sysctl(name, "28633")}
			f.repair.sysctl(name, "28633")
			out = append(out, f)
		}
	}
	if m.Inside == nil {
		return out
	}
	if m.Inside.Namespaces != "" && len(out) == 0 {
		out = append(out, Finding{Check: "namespaces", Level: Problem, Cause: "namespaces", Found: m.Inside.Namespaces, Lost: noSandbox, Mend: m.loosen()})
	}
	if m.Inside.Proc != "" {
		out = append(out, Finding{Check: "proc", Level: Problem, Cause: "proc", Found: m.Inside.Proc, Lost: noSandbox, Mend: m.loosen()})
	}
	return out
}

// loosen is what makes a container around whisk, or else a service, let sandboxes be built.
func (m *Machine) loosen() string { return mend.Loosen(m.container() != "") }

// subIDs tells of the ranges in subuid(5) and subgid(5).
func subIDs(m *Machine, d mend.Distro) []Finding {
	f := Finding{Check: "sub-ids", Level: OK}
	s := m.system()
	if m.User.UID == 0 {
		got, err := s.Find(m.User)
		switch {
		case err != nil:
			f.Level, f.Found, f.Lost = Problem, err.Error(), noSandbox
		case got.Why != nil:
			f.Level, f.Cause, f.Found, f.Lost = Note, string(got.Why.Cause), got.Why.What, got.Why.Cost
		default:
			f.Found = got.String()
		}
		return []Finding{f}
	}
	// Whether the helpers work is the next probe's: with good ones, the ranges decide alone.
	good := userns.Helper{Path: "/", SetUID: true}
	s.NewUIDMap, s.NewGIDMap, s.NoNewPrivs = good, good, false
	got, err := s.Find(m.User)
	var refused *userns.Error
	switch {
	case errors.As(err, &refused):
		f.Level, f.Cause, f.Found, f.Lost, f.Mend = Problem, string(refused.Cause), refused.Error(), noSandbox, refused.Remedy
	case err != nil:
		f.Level, f.Found, f.Lost = Problem, err.Error(), noSandbox
	case got.Why != nil:
		f.Level, f.Cause, f.Found, f.Lost, f.Mend = Note, string(got.Why.Cause), got.Why.What, got.Why.Cost, got.Why.Remedy
	default:
		f.Found = got.String()
	}
	first, count, serr := s.Spare(m.User)
	switch {
	case f.Cause == string(userns.CauseDirectorySilent) && m.Directory != nil && m.Directory.NoProgram:
		f.repair.install(mend.Getsubids, "getsubids")
	case f.Level != OK && serr == nil && s.Asks() == "": // what root writes into the files nobody reads where a directory is asked
		f.repair.subIDs = mend.SubIDLine(m.name(), first, count)
	}
	out := []Finding{f}
	shared, _ := s.Clashes(m.User)
	if len(shared) > 0 {
		var what []string
		for _, c := range shared {
			what = append(what, c.String())
		}
		how := "have whoever keeps the directory give each a range of their own"
		if s.Asks() == "" {
			how = d.MoveSubIDs(m.name(), first, count, spans(shared, "/etc/subuid"), spans(shared, "/etc/subgid"))
		}
		out = append(out, Finding{Check: "sub-ids", Level: Note, Cause: "clash", Found: strings.Join(what, "; "),
			Lost: "sandboxes of either can reach files of the other's", Mend: how, Then: "whisk pull your images again: their files have owners of the old range"})
	}
	return out
}

// spans are what of a file's ranges somebody else has, too.
func spans(shared []userns.Clash, file string) [][2]uint64 {
	var out [][2]uint64
	for _, c := range shared {
		if c.File == file {
			out = append(out, [2]uint64{uint64(c.First), uint64(c.Last)})
		}
	}
	return out
}

// idHelpers tells of newuidmap and newgidmap.
func idHelpers(m *Machine, d mend.Distro) []Finding {
	if m.User.UID == 0 {
		return nil // root writes the maps itself
	}
	if m.NewUIDMap.Path == "" && m.NewGIDMap.Path == "" {
		return []Finding{helperMissing("newuidmap and newgidmap are", "newuidmap", d)}
	}
	var out []Finding
	var found []string
	for _, h := range []struct {
		name string
		userns.Helper
	}{{"newuidmap", m.NewUIDMap}, {"newgidmap", m.NewGIDMap}} {
		f := Finding{Check: h.name, Level: Problem, Lost: noSandbox}
		err := h.Power(m.NoNewPrivs, d)
		switch {
		case h.Path == "":
			f = helperMissing(h.name+" is", h.name, d)
		case err != nil:
			f.Cause, f.Found, f.Mend = string(err.Cause), err.Error(), err.Remedy
			if ids, err := m.system().Find(m.User); err == nil && ids.Single {
				// Nobody asks it for one id.
				f.Level, f.Lost = Note, "no sandbox would start once you have sub-ids"
			}
			switch {
			case !h.SetUID && !h.Caps:
				f.repair.add("chmod u+s " + mend.Quote(h.Path))
			case h.NoSUID != "":
				f.repair.add("mount -o remount,suid " + mend.Quote(h.NoSUID) + " # and take nosuid out of its line in /etc/fstab")
			}
		default:
			how := "setuid"
			if !h.SetUID {
				how = "file capability"
			}
			found = append(found, h.Path+" ("+how+")")
			continue
		}
		out = append(out, f)
	}
	if m.Stage != nil && m.Stage.Cause == userns.CauseHelperRefused && len(out) == 0 {
		return []Finding{{Check: "newuidmap", Level: Problem, Cause: string(m.Stage.Cause), Found: m.Stage.Message, Lost: noSandbox, Mend: m.Stage.Remedy}}
	}
	if len(found) > 0 {
		out = append(out, Finding{Check: "id helpers", Level: OK, Found: strings.Join(found, ", ")})
	}
	return out
}

func helperMissing(which, program string, d mend.Distro) Finding {
	missing := userns.HelperMissing(which, d)
	f := Finding{Check: "id helpers", Level: Note, Cause: string(missing.Cause), Found: missing.What, Lost: missing.Cost, Mend: missing.Remedy}
	f.repair.install(mend.IDHelpers, program)
	return f
}
