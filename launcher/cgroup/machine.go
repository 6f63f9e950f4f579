package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mountPoint is where every distribution mounts the control groups.
const mountPoint = "/sys/fs/cgroup"

// Machine is what a user's processes may do with control groups here. The zero value is a machine without any.
type Machine struct {
	Unified bool // version 2 alone is mounted
	Systemd bool // it is process 1
	// Bus is the socket of the user's D-Bus; empty: there is none, so no systemd of the user's can be asked.
	Bus string
	// Controllers are those that systemd delegates to the user: "cpu", "memory", "pids" …
	Controllers []string
}

// Probe looks at this machine for the user of this id; runtimeDir is the login's XDG_RUNTIME_DIR.
func Probe(uid int, runtimeDir string) Machine {
	var m Machine
	var st unix.Statfs_t
	m.Unified = unix.Statfs(mountPoint, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
	if _, err := os.Stat("/run/systemd/system"); err == nil { // sd_booted(3)
		m.Systemd = true
	}
	if runtimeDir != "" {
		bus := filepath.Join(runtimeDir, "bus")
		if fi, err := os.Stat(bus); err == nil && fi.Mode().Type() == os.ModeSocket {
			m.Bus = bus
		}
	}
	b, err := os.ReadFile(filepath.Join(mountPoint, fmt.Sprintf("user.slice/user-%d.slice/user@%d.service/cgroup.controllers", uid, uid)))
	if err == nil {
		m.Controllers = strings.Fields(string(b))
	}
	return m
}

// Lingers says that a user's systemd stays when the last login session ends, loginctl(1).
func Lingers(user string) bool {
	_, err := os.Stat(filepath.Join("/var/lib/systemd/linger", user))
	return err == nil
}

// lacks says why there can be no group at all, and what to type; "" when there can.
func (m Machine) lacks() (why, hint string) {
	switch {
	case !m.Unified:
		return "this machine does not have control groups of version 2", "leave the limit away, or start without it: --best-effort"
	case !m.Systemd:
		return "no systemd runs here to give whisk a control group of its own", "leave the limit away, or start without it: --best-effort"
	case m.Bus == "":
		return "your login has no systemd of its own to ask for a control group (no D-Bus socket in XDG_RUNTIME_DIR)", "log in through ssh, a display manager or machinectl shell, not su or sudo; on Debian the package dbus-user-session is needed, too"
	}
	return "", ""
}

// Able says that a scope can be had.
func (m Machine) Able() bool {
	why, _ := m.lacks()
	return why == ""
}
