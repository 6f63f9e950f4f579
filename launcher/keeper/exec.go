package keeper

import (
	"fmt"
	"net/http"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/launcher"
)

func (s *server) handleExec(r *http.Request, out *reply) error {
	var spec launcher.ExecSpec
	if err := readBody(r, &spec); err != nil {
		return err
	}
	files := takeFiles(r)
	defer closeAll(files)
	if err := checkVersion(spec.Version); err != nil {
		return err
	}
	m, sb, err := s.find(r)
	if err != nil {
		return err
	}
	var stdio launcher.Stdio
	switch {
	case spec.TTY && len(files) == 1:
		uid, err := sb.UserID(spec.User)
		if err != nil {
			return err
		}
		master, slave, err := sb.Terminal(uid)
		if err != nil {
			return err
		}
		defer master.Close()
		defer slave.Close()
		stdio = launcher.Stdio{slave, slave, slave}
		defer func() { slave.Close() }()
		p, err := sb.Exec(&spec, stdio)
		if err != nil {
			return err
		}
		slave.Close() // or the master would never see the end
		if err := sendFile(files[0], master); err != nil {
			_ = p.Signal(unix.SIGKILL)
			return err
		}
		return m.attend(r, out, sb, p)
	case !spec.TTY && len(files) == 3:
		p, err := sb.Exec(&spec, launcher.Stdio(files))
		if err != nil {
			return err
		}
		closeAll(files)
		return m.attend(r, out, sb, p)
	}
	return fmt.Errorf("read request: %d descriptors are the wrong number", len(files))
}

// attend waits for a command in the foreground. A caller that goes away takes it along.
func (m *managed) attend(r *http.Request, out *reply, sb *launcher.Sandbox, p *launcher.Process) error {
	name, killed := strconv.Itoa(p.PID()), m.oomKills()
	m.mu.Lock()
	m.execs[name] = p
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.execs, name)
		m.mu.Unlock()
	}()
	out.send(Event{Type: EventStarted, ID: m.rec.ID, Exec: name})
	select {
	case <-p.Exited():
	case <-r.Context().Done():
		_ = p.Signal(unix.SIGKILL)
		<-p.Exited()
	}
	if fault := faultOf(sb, p.ExitCode()); fault != nil {
		return fault
	}
	if fault := m.outOfMemory("the command", p.ExitCode(), killed); fault != nil {
		return fault
	}
	out.send(Event{Type: EventExited, ID: m.rec.ID, Code: p.ExitCode()})
	return nil
}

func (s *server) handleExecDetached(r *http.Request, out *reply) error {
	var spec launcher.ExecSpec
	if err := readBody(r, &spec); err != nil {
		return err
	}
	if err := checkVersion(spec.Version); err != nil {
		return err
	}
	m, sb, err := s.find(r)
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	spec.TTY = false
	if _, err := sb.Exec(&spec, launcher.Stdio{null, null, null}); err != nil {
		return err
	}
	out.send(Event{Type: EventStarted, ID: m.rec.ID})
	return nil
}
