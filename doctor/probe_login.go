package doctor

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/whisk-sandbox/whisk/launcher/cgroup"
	"github.com/whisk-sandbox/whisk/mend"
)

// list names a folder's files; none where it is not there or may not be read.
func (m *Machine) list(dir string) []string {
	entries, err := fs.ReadDir(m.Files, dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// systemd tells whether it is what started this machine, sd_booted(3).
func (m *Machine) systemd() bool { return m.has("run/systemd/system") }

// groups is what whisk's own commands see of control groups.
func (m *Machine) groups() cgroup.Machine {
	return cgroup.On(m.Files, int(m.User.UID), m.RuntimeDir)
}

// cgroups tells what limits can be kept, cgroups(7).
func cgroups(m *Machine, d mend.Distro) []Finding {
	g := m.groups()
	lack := g.LackOf("memory", "pids", "cpu")
	if lack == nil {
		return []Finding{{Check: "cgroups", Level: OK, Found: "version 2, delegated: " + strings.Join(g.Controllers, " ")}}
	}
	f := Finding{Check: "cgroups", Level: Note, Cause: lack.Cause, Found: lack.What, Mend: lack.Hint, Lost: "--memory, --cpus and --pids-limit cannot be kept"}
	if lack.Anew {
		f.Then = anew
	}
	switch lack.Cause {
	case "no-user-systemd":
		f.Mend = "" // login says what mends that
		if m.User.UID == 0 {
			f.Mend = lack.Hint
		}
	case "no-bus":
		f.repair.install(mend.UserBus, "")
	case "not-delegated":
		f.Lost = "limits on these cannot be kept"
		f.repair.add(mend.DelegateAsRoot()...)
	}
	return []Finding{f}
}

// login tells whether sandboxes outlive the session.
func login(m *Machine, _ mend.Distro) []Finding {
	f := Finding{Check: "login", Level: OK}
	if m.User.UID == 0 {
		return nil
	}
	uid := fmt.Sprint(m.User.UID)
	linger := m.has("var/lib/systemd/linger/" + m.name())
	switch {
	case !m.systemd():
		f.Level, f.Cause, f.Found = Note, "no-systemd", "systemd does not run this machine"
		f.Lost = "nothing starts sandboxes at boot"
	case !m.has("run/user/" + uid + "/systemd"):
		f.Level, f.Cause, f.Found = Note, "no-user-systemd", "no systemd of yours runs at /run/user/"+uid
		f.Lost, f.Mend = "no limits, and no start at boot", mend.OwnSystemd
	case !linger:
		f.Level, f.Cause, f.Found = Note, "no-linger", "your systemd runs, and lingering is off"
		f.Lost, f.Mend = "sandboxes may end with your last session, and none starts at boot", "loginctl enable-linger"
	default:
		f.Found = "your systemd runs, and stays after logout"
	}
	if m.systemd() && !linger {
		f.repair.optional = append(f.repair.optional, "loginctl enable-linger "+mend.Quote(m.name())+" # your sandboxes outlive your logout")
	}
	return []Finding{f}
}
