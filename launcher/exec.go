package launcher

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Exec starts a further command; it returns when the program is executing. terminal asks for a pty, given by
// Terminal, as stdio.
func (s *Sandbox) Exec(spec *ExecSpec, stdio Stdio) (*Process, error) {
	if len(spec.Argv) == 0 {
		return nil, &Error{Message: "no command to execute", Exit: ExitWhisk}
	}
	ended := &Error{Message: fmt.Sprintf("sandbox %s has ended", s.spec.Name), Hint: "whisk start " + s.spec.Name, Exit: ExitWhisk}
	select {
	case <-s.exited:
		return nil, ended
	default:
	}
	var p *Process
	err := s.do(func() error {
		who, err := s.identify(spec.User)
		if err != nil {
			return err
		}
		env := mergeEnv(s.plan.env, spec.Env)
		if !hasEnv(env, "HOME") {
			env = append(env, "HOME="+cmp.Or(who.home, "/"))
		}
		if spec.TTY && !hasEnv(env, "TERM") {
			env = append(env, "TERM=xterm")
		}
		workdir := filepath.Clean("/" + cmp.Or(spec.Workdir, s.plan.workdir))
		if err := checkWorkdir(workdir); err != nil {
			return err
		}
		c := &command{argv: spec.Argv, env: env, workdir: workdir, who: who, rights: s.rights, rlimits: s.plan.rlimits, single: s.maxID == 0, lone: s.loneFor(who), tty: spec.TTY, oom: s.spec.OOMScore}
		child := born{procs: s.procs, stdio: (*[3]*os.File)(&stdio), root: c.lone.joinScript, app: func(p *script) { appScript(p, c) }, name: c.argv[0], orphan: s.plan.init, away: s.pidns}
		if c.lone.join != 0 {
			child.keep = []int{c.lone.join}
		}
		if !child.orphan {
			// The app is process 1 and need not know how to reap.
			pid, h, err := bear(child)
			if err != nil {
				return err
			}
			p = &Process{pid: pid, h: h, done: make(chan struct{})}
			go func() { p.end(waitFor(pid)) }()
			return nil
		}
		s.more.expect()
		pid, h, err := bear(child)
		if err == nil {
			p = &Process{pid: pid, h: h, done: make(chan struct{})}
		}
		s.more.add(p)
		return err
	})
	if errors.Is(err, unix.ENOMEM) || errors.Is(err, errDiedEarly) {
		// A pid namespace whose process 1 is on its way out says the one, pid_namespaces(7), or kills the child.
		select {
		case <-s.exited:
			return nil, ended
		case <-time.After(time.Second):
		}
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}
