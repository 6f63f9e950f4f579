package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/mend"
)

// The user's systemd on its bus, org.freedesktop.systemd1(5).
const (
	systemdName   = "org.freedesktop.systemd1"
	systemdPath   = "/org/freedesktop/systemd1"
	systemdIface  = "org.freedesktop.systemd1.Manager"
	ownGroup      = "keeper"
	controllersIn = "cgroup.controllers"
)

// Scope is the control group that holds this process and the groups it makes. Its methods are safe for use by
// several goroutines.
type Scope struct {
	dir         string
	controllers []string // that groups below have
}

// property and auxiliary are a(sv) and a(sa(sv)) of StartTransientUnit.
type property struct {
	Name  string
	Value dbus.Variant
}

type auxiliary struct {
	Name       string
	Properties []property
}

// properties plan the scope: delegated, so that systemd leaves alone what is below, and without the bound on tasks that
// a user's units have by default, as sandboxes have their own.
func properties(pid int, description string) []property {
	return []property{
		{"Description", dbus.MakeVariant(description)},
		{"PIDs", dbus.MakeVariant([]uint32{uint32(pid)})},
		{"Delegate", dbus.MakeVariant(true)},
		{"TasksMax", dbus.MakeVariant(^uint64(0))},
		{"CollectMode", dbus.MakeVariant("inactive-or-failed")},
	}
}

// unitName makes a unit's name of a network's: systemd.unit(5) allows letters, digits and ":-_.\".
func unitName(network string, pid int) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '.', r == '-':
			return r
		}
		return '_'
	}, network)
	return fmt.Sprintf("whisk-%s-%d.scope", clean, pid)
}

// NewScope moves this process into a scope of its own. uid is the user's id as the host has it. It is asked of the
// user's systemd and waits for its answer, which takes milliseconds.
func NewScope(ctx context.Context, m Machine, uid int, network string) (*Scope, error) {
	conn, err := dbus.Dial("unix:path="+m.Bus, dbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("connecting to the user's D-Bus: %w", err)
	}
	defer conn.Close()
	// Inside a user namespace getuid(2) is not what the bus sees.
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(uid))}); err != nil {
		return nil, fmt.Errorf("logging in to the user's D-Bus: %w", err)
	}
	if err := conn.Hello(); err != nil {
		return nil, fmt.Errorf("greeting the user's D-Bus: %w", err)
	}
	// JobRemoved comes only to those that have subscribed.
	done := make(chan *dbus.Signal, 16)
	conn.Signal(done)
	if err := conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface(systemdIface), dbus.WithMatchMember("JobRemoved")); err != nil {
		return nil, fmt.Errorf("listening to the user's systemd: %w", err)
	}
	manager := conn.Object(systemdName, systemdPath)
	if err := manager.CallWithContext(ctx, systemdIface+".Subscribe", 0).Err; err != nil {
		return nil, fmt.Errorf("listening to the user's systemd: %w", err)
	}
	pid := os.Getpid()
	name := unitName(network, pid)
	var job dbus.ObjectPath
	call := manager.CallWithContext(ctx, systemdIface+".StartTransientUnit", 0, name, "replace", properties(pid, "whisk network "+network), []auxiliary{})
	if err := call.Store(&job); err != nil {
		return nil, fmt.Errorf("asking the user's systemd for %s: %w", name, err)
	}
	if err := await(ctx, done, job, name); err != nil {
		return nil, err
	}
	return settle(name)
}

// await waits for the end of a job: JobRemoved(id, job, unit, result).
func await(ctx context.Context, signals <-chan *dbus.Signal, job dbus.ObjectPath, name string) error {
	for {
		select {
		case s, ok := <-signals:
			if !ok {
				return errors.New("waiting for the user's systemd: the bus has closed the connection")
			}
			if len(s.Body) != 4 || s.Body[1] != job {
				continue
			}
			if result, _ := s.Body[3].(string); result != "done" {
				return fmt.Errorf("asking the user's systemd for %s: it %s", name, result)
			}
			return nil
		case <-ctx.Done():
			return fmt.Errorf("waiting for the user's systemd: %w", ctx.Err())
		}
	}
}

// settle makes the scope's tree: this process in a group of its own, so that others can have controllers.
func settle(name string) (*Scope, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("reading this process's control group: %w", err)
	}
	path, err := ownPath(string(b))
	if err != nil {
		return nil, err
	}
	if filepath.Base(path) != name {
		return nil, fmt.Errorf("entering %s: this process is in %s", name, path)
	}
	s := &Scope{dir: filepath.Join(mountPoint, path)}
	own := filepath.Join(s.dir, ownGroup)
	if err := os.Mkdir(own, 0o755); err != nil {
		return nil, fmt.Errorf("making the keeper's control group: %w", err)
	}
	if err := write(own, "cgroup.procs", "0"); err != nil {
		return nil, fmt.Errorf("entering the keeper's control group: %w", err)
	}
	b, err = os.ReadFile(filepath.Join(s.dir, controllersIn))
	if err != nil {
		return nil, fmt.Errorf("reading controllers: %w", err)
	}
	for _, c := range strings.Fields(string(b)) {
		if write(s.dir, "cgroup.subtree_control", "+"+c) == nil { // one that cannot be had is missed by who asks for it
			s.controllers = append(s.controllers, c)
		}
	}
	return s, nil
}

// ownPath finds a process's group of version 2 in its /proc/PID/cgroup, cgroups(7).
func ownPath(text string) (string, error) {
	for line := range strings.Lines(text) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path, nil
		}
	}
	return "", errors.New("reading this process's control group: none of version 2")
}

// Group is the control group of one sandbox.
type Group struct {
	dir         string
	controllers []string
}

// New makes a group, or empties the settings of one that is there, with these limits. A limit that cannot be kept is
// an error.
func (s *Scope) New(id string, l Limits) (*Group, error) {
	g := &Group{dir: filepath.Join(s.dir, id), controllers: s.controllers}
	if err := os.Mkdir(g.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("making a control group: %w", err)
	}
	if err := g.Limit(l); err != nil {
		g.Remove()
		return nil, err
	}
	return g, nil
}

// Open gives the group at a path below the mount point, as Path has it, of a sandbox that runs.
func Open(path string) (*Group, error) {
	g := &Group{dir: filepath.Join(mountPoint, filepath.Clean("/"+path))}
	b, err := os.ReadFile(filepath.Join(g.dir, controllersIn))
	if err != nil {
		return nil, fmt.Errorf("reading controllers: %w", err)
	}
	g.controllers = strings.Fields(string(b))
	return g, nil
}

// Path is the group's place below the mount point of control groups.
func (g *Group) Path() string { return strings.TrimPrefix(g.dir, mountPoint) }

// Limit sets all limits anew. A memory limit below what is used makes the kernel take memory back, and end processes
// where it cannot.
func (g *Group) Limit(l Limits) error { return g.limit(l, HereDisks()) }

func (g *Group) limit(l Limits, disks Disks) error {
	if lost, hint := l.Lost(Machine{Unified: true, Systemd: true, User: true, Bus: "had", Controllers: g.controllers, Distro: mend.Here()}); lost != "" {
		return &LostError{Message: lost, hint: hint}
	}
	settings := l.Settings(g.controllers)
	for _, d := range l.Disks {
		number, err := disks.Number(d.Path)
		if err != nil {
			return err
		}
		settings = append(settings, d.setting(number))
	}
	weighs := false
	for _, s := range settings {
		err := write(g.dir, s.File, s.Value)
		if err != nil && !(s.Optional && errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("setting %s to %q: %w", s.File, s.Value, err)
		}
		weighs = weighs || err == nil && strings.HasSuffix(s.File, ".weight")
	}
	if l.Weight > 0 && !weighs {
		return &LostError{Message: "a share of the disks' time cannot be kept: this kernel has no io.weight", hint: "leave it away: bound a disk's rate with --device-read-bps and --device-write-bps"}
	}
	return nil
}

// LostError says that a limit cannot be kept.
type LostError struct{ Message, hint string }

// Error implements error.
func (e *LostError) Error() string { return e.Message }

// Hint is what to type.
func (e *LostError) Hint() string { return e.hint }

// Procs opens the file that takes a process into the group: who writes "0" to it enters. The kernel looks at the
// rights of who opened it.
func (g *Group) Procs() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(g.dir, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a control group: %w", err)
	}
	return f, nil
}

// Remove removes the group when nothing runs in it any more. systemd removes what stays, with the scope.
func (g *Group) Remove() {
	// A sandbox may have made groups below its own.
	var below []string
	_ = filepath.WalkDir(g.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			below = append(below, path)
		}
		return nil
	})
	for _, dir := range slices.Backward(below) {
		_ = unix.Rmdir(dir)
	}
}

// write writes one of the kernel's files; it must be there.
func write(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
