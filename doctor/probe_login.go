package doctor

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

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

// delegation lets each user's systemd give out all controllers (systemd.resource-control(5)).
const (
	delegationFile = "/etc/systemd/system/user@.service.d/delegate.conf"
	delegationText = "[Service]\\nDelegate=cpu cpuset io memory pids\\n"
)

// cgroups tells what limits can be kept, cgroups(7).
func cgroups(m *Machine, d mend.Distro) []Finding {
	f := Finding{Check: "cgroups", Level: Note, Lost: "--memory, --cpus and --pids-limit cannot be kept"}
	const without = "leave these limits away, or start without them: --best-effort; --ulimit is kept everywhere"
	switch {
	case !m.systemd() && m.container() != "":
		f.Cause, f.Found, f.Mend = "no-systemd", "no systemd runs in this container to delegate one to you", without
	case !m.systemd():
		f.Cause, f.Found, f.Mend = "no-systemd", "no systemd runs this machine to delegate one to you", without
	case !m.has("sys/fs/cgroup/cgroup.controllers"):
		f.Cause, f.Found = "cgroup-v1", "version 1"
		f.Mend = "add systemd.unified_cgroup_hierarchy=1 to the kernel's command line and start the machine anew"
		if m.has("sys/fs/cgroup/unified") {
			f.Found = "version 1 beside version 2"
		}
		if !m.has("sys/fs/cgroup/unified") && !m.has("sys/fs/cgroup/memory") {
			f.Cause, f.Found, f.Mend = "no-cgroup", "none mounted", ""
		}
	case m.User.UID == 0:
		f.Level, f.Found, f.Lost = OK, "version 2", ""
	default:
		uid := fmt.Sprint(m.User.UID)
		at := "sys/fs/cgroup/user.slice/user-" + uid + ".slice/user@" + uid + ".service"
		if !m.has(at) {
			f.Cause, f.Found = "no-user-systemd", "version 2; your systemd does not run"
			break // login says what mends that
		}
		if !m.has("run/user/" + uid + "/bus") {
			f.Cause, f.Found, f.Mend = "no-bus", "version 2; no D-Bus socket at /run/user/"+uid+"/bus to ask your systemd through", d.Install(mend.UserBus)
			f.Then = anew
			f.repair.install(mend.UserBus, "")
			break
		}
		have := strings.Fields(m.text(at + "/cgroup.controllers"))
		var missing []string
		for _, c := range []string{"memory", "pids", "cpu"} {
			if !slices.Contains(have, c) {
				missing = append(missing, c)
			}
		}
		if len(missing) == 0 {
			f.Level, f.Found, f.Lost = OK, "version 2, delegated: "+strings.Join(have, " "), ""
			break
		}
		f.Cause, f.Found = "not-delegated", "version 2; not delegated to you: "+strings.Join(missing, ", ")
		f.Lost = "limits on these cannot be kept"
		f.Mend = "sudo mkdir -p /etc/systemd/system/user@.service.d && printf '" + delegationText + "' | sudo tee " + delegationFile + " >/dev/null && sudo systemctl daemon-reload"
		f.Then = anew
		f.repair.add("mkdir -p /etc/systemd/system/user@.service.d", "printf '"+delegationText+"' > "+delegationFile, "systemctl daemon-reload")
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
		f.Lost, f.Mend = "no limits, and no start at boot", "log in through ssh, a display manager or machinectl shell, not su or sudo; or: loginctl enable-linger"
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
