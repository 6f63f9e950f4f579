package cgroup

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/whisk-sandbox/whisk/mend"
)

// mountPoint is where every distribution mounts the control groups.
const mountPoint = "/sys/fs/cgroup"

// Machine is what a user's processes may do with control groups here. The zero value is a machine without any.
type Machine struct {
	Unified bool // version 2 alone is mounted
	Older   bool // version 1 is mounted
	Systemd bool // it is process 1
	User    bool // the user has a systemd of their own
	// Bus is the socket of the user's D-Bus; empty: there is none, so no systemd of the user's can be asked.
	Bus string
	// Controllers are those that systemd delegates to the user: "cpu", "memory", "pids" …
	Controllers []string
	Distro      mend.Distro // in whose words the remedies are
}

// Probe looks at this machine for the user of this id; runtimeDir is the login's XDG_RUNTIME_DIR.
func Probe(uid int, runtimeDir string) Machine { return On(os.DirFS("/"), uid, runtimeDir) }

// On looks at the machine of these files. A login whose runtime directory has no D-Bus, as of su(1) or of a cron job, is
// looked up where systemd keeps that of the user, pam_systemd(8).
func On(root fs.FS, uid int, runtimeDir string) Machine {
	has := func(path string) bool {
		_, err := fs.Stat(root, strings.TrimPrefix(path, "/"))
		return err == nil
	}
	m := Machine{
		Unified: has(mountPoint + "/cgroup.controllers"), // the root of version 2 alone has it, cgroups(7)
		Older:   has(mountPoint+"/memory") || has(mountPoint+"/unified") || has(mountPoint+"/systemd"),
		Systemd: has("/run/systemd/system"), // sd_booted(3)
		Distro:  mend.Read(root),
	}
	for _, dir := range []string{runtimeDir, fmt.Sprintf("/run/user/%d", uid)} {
		if bus := filepath.Join(dir, "bus"); m.Bus == "" && filepath.IsAbs(dir) {
			if fi, err := fs.Stat(root, strings.TrimPrefix(bus, "/")); err == nil && fi.Mode().Type() == fs.ModeSocket {
				m.Bus = bus
			}
		}
	}
	own := fmt.Sprintf("%s/user.slice/user-%d.slice/user@%[2]d.service", mountPoint, uid)
	m.User = has(own)
	if b, err := fs.ReadFile(root, strings.TrimPrefix(own, "/")+"/"+controllersIn); err == nil {
		m.Controllers = strings.Fields(string(b))
	}
	return m
}

// Lingers says that a user's systemd stays when the last login session ends, loginctl(1).
func Lingers(user string) bool {
	_, err := os.Stat(filepath.Join("/var/lib/systemd/linger", user))
	return err == nil
}

// Lack is what keeps a login from control groups of its own.
type Lack struct {
	Cause string // one word for programs: "no-systemd"
	What  string // one line
	Hint  string // what to type
	Anew  bool   // the hint counts for the next login only
}

// without is what is left to whoever cannot mend a machine.
const without = "leave the limit away, or start without it: --best-effort"

// Lack says why there can be no group at all; nil when there can.
func (m Machine) Lack() *Lack {
	switch {
	case !m.Systemd:
		return &Lack{Cause: "no-systemd", What: "no systemd runs here to give whisk a control group of its own", Hint: without + "; --ulimit is kept everywhere"}
	case !m.Unified && m.Older:
		return &Lack{Cause: "cgroup-v1", What: "this machine does not have control groups of version 2 alone", Hint: mend.UnifiedGroups}
	case !m.Unified:
		return &Lack{Cause: "no-cgroup", What: "no control groups are mounted here", Hint: without}
	case !m.User:
		return &Lack{Cause: "no-user-systemd", What: "your login has no systemd of its own to ask for a control group", Hint: mend.OwnSystemd}
	case m.Bus == "":
		return &Lack{Cause: "no-bus", What: "your login has no D-Bus socket to ask its systemd for a control group through", Hint: m.Distro.Install(mend.UserBus), Anew: true}
	}
	return nil
}

// LackOf says why these controllers cannot be had: there is no group at all, or they are not delegated. Nil when they can.
func (m Machine) LackOf(controllers ...string) *Lack {
	if l := m.Lack(); l != nil {
		return l
	}
	var missing []string
	for _, c := range controllers {
		if !slices.Contains(m.Controllers, c) && !slices.Contains(missing, c) {
			missing = append(missing, c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return &Lack{Cause: "not-delegated", What: "the control group of your login has no " + strings.Join(missing, " and ") + " controller", Hint: m.Distro.Delegate(), Anew: true}
}

// Able says that a scope can be had.
func (m Machine) Able() bool { return m.Lack() == nil }
