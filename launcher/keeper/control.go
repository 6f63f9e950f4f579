package keeper

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/cgroup"
)

// scopeTime bounds the wait for the user's systemd, which answers within milliseconds when it answers at all.
const scopeTime = 10 * time.Second

// grouped is a control group, or why there is none. Neither: the sandbox can do without.
type grouped struct {
	it  *cgroup.Group
	err error
}

// control makes a sandbox's control group meanwhile. One that has limits needs it. One in the background gets it where
// it can be had, for whisk stats and update. One in the foreground that asks for nothing goes without: asking systemd
// takes as long as all the rest of its start.
func (s *server) control(ctx context.Context, spec *launcher.Spec, background bool) <-chan grouped {
	out := make(chan grouped, 1)
	limits, _, err := launcher.KeepLimits(spec, s.doc.Machine)
	if err != nil {
		out <- grouped{err: err}
		return out
	}
	if !s.doc.Machine.Able() || limits.None() && !background {
		out <- grouped{}
		return out
	}
	go func() {
		g, err := s.makeGroup(ctx, spec.ID, limits)
		if err != nil && limits.None() {
			err = nil
		}
		out <- grouped{g, err}
	}()
	return out
}

func (s *server) makeGroup(ctx context.Context, id string, limits cgroup.Limits) (*cgroup.Group, error) {
	s.scoping.Lock()
	defer s.scoping.Unlock()
	if s.scope == nil {
		ctx, cancel := context.WithTimeout(ctx, scopeTime)
		defer cancel()
		scope, err := cgroup.NewScope(ctx, s.doc.Machine, s.doc.UID, s.doc.Network)
		if err != nil {
			return nil, fmt.Errorf("keeping limits: %w", err)
		}
		s.scope = scope
	}
	g, err := s.scope.New(id, limits)
	if err != nil {
		return nil, fmt.Errorf("keeping limits: %w", err)
	}
	return g, nil
}

// enterGroup has the sandbox start in its group.
func (m *managed) enterGroup(g grouped, sb *launcher.Sandbox) error {
	if g.err != nil || g.it == nil {
		return g.err
	}
	procs, err := g.it.Procs()
	if err != nil {
		g.it.Remove()
		return err
	}
	sb.Control(procs)
	m.mu.Lock()
	m.group = g.it
	m.mu.Unlock()
	return nil
}

// leaveGroup removes the group of a sandbox that has ended.
func (m *managed) leaveGroup() {
	m.mu.Lock()
	g := m.group
	m.group = nil
	m.mu.Unlock()
	if g != nil {
		g.Remove()
	}
}

// oomKills is how many processes of the sandbox the kernel has ended for want of memory.
func (m *managed) oomKills() int64 {
	m.mu.Lock()
	g := m.group
	m.mu.Unlock()
	if g == nil {
		return 0
	}
	return g.OOMKills()
}

// oom says that the app ended because its memory limit was reached; nil: it did not.
func (m *managed) oom(code int) *launcher.Error { return m.outOfMemory("the app", code, 0) }

// outOfMemory words the end of the app or of a further command, given how many were killed when it began.
func (m *managed) outOfMemory(who string, code int, before int64) *launcher.Error {
	m.mu.Lock()
	name, limit := m.rec.Name, m.rec.App.Memory
	m.mu.Unlock()
	return oomFault(who, name, limit, code, m.oomKills()-before)
}

// oomFault is the fault of what ended with this exit code while so many processes of its sandbox were killed for want of
// memory; nil: it ended otherwise.
func oomFault(who, sandbox string, limit int64, code int, kills int64) *launcher.Error {
	if code != 128+int(unix.SIGKILL) || kills <= 0 {
		return nil
	}
	text := who + " was killed: out of memory"
	if limit > 0 {
		text = who + " was killed: out of its memory limit of " + config.SizeText(limit)
	}
	return &launcher.Error{Message: text, Hint: "raise it: --memory, or memory in whisk.toml; while it runs: whisk update --memory SIZE " + sandbox, Exit: code}
}

// handleUpdate changes the limits of a running sandbox, and with them what its next start asks for. The project that it
// belongs to has not changed thereby.
func (s *server) handleUpdate(r *http.Request, _ *reply) error {
	var l cgroup.Limits
	if err := readBody(r, &l); err != nil {
		return err
	}
	m, _, err := s.find(r)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.group == nil {
		lost, hint := l.Lost(s.doc.Machine)
		if lost == "" {
			lost, hint = fmt.Sprintf("sandbox %s was started without a control group", m.rec.Name), "start it in the background (-d), or with a limit"
		}
		return &launcher.Error{Message: lost, Hint: hint, Exit: launcher.ExitWhisk}
	}
	if err := m.group.Limit(l); err != nil {
		if lost, ok := errors.AsType[*cgroup.LostError](err); ok {
			return &launcher.Error{Message: lost.Error(), Hint: lost.Hint(), Exit: launcher.ExitWhisk}
		}
		return fmt.Errorf("updating %s: %w", m.rec.Name, err)
	}
	if m.rec.AskedLimits == nil {
		asked := launcher.ControlLimits(&m.rec.App)
		m.rec.AskedLimits = &asked
	}
	launcher.SetLimits(&m.rec.App, l)
	return m.rec.Write(s.doc.Dirs)
}
