package keeper

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/slirp"
)

// start launches the sandbox and looks after it until it has ended for good. On an error nothing runs, and the
// caller drops it.
func (m *managed) start(ctx context.Context, f *front) error {
	if err := m.launch(ctx, f); err != nil {
		return err
	}
	go m.lookAfter()
	m.s.settle.Do(func() { m.s.sweeping.Go(m.s.tidy) })
	return nil
}

// launch makes namespaces, root and network side by side and starts the app.
func (m *managed) launch(ctx context.Context, f *front) (err error) {
	a := m.ahead
	m.ahead = nil
	if a == nil {
		wish, _ := netip.ParseAddr(m.rec.IPv4) // a restart keeps its address
		a = m.s.goAhead(&m.rec.Spec, wish)
	}
	group := m.s.control(ctx, &m.rec.Spec, f == nil)
	ns := <-a.namespaces
	if ns.err != nil {
		return ns.err
	}
	sb, err := launcher.Prepare(&m.rec.Spec, launcher.Options{Dirs: m.s.doc.Dirs, Base: m.base, MaxID: m.s.doc.MaxID, Volumes: m.rec.Volumes, Namespaces: ns.it})
	if err != nil {
		return errors.Join(err, a.leave())
	}
	defer func() {
		if err != nil {
			m.unplug(false)
			sb.Close()
			m.leaveGroup()
			m.mu.Lock()
			m.rec.Volumes = sb.Volumes() // those it was given, and those it has made
			m.mu.Unlock()
		}
	}()
	ep, err := a.join(ctx)
	if err != nil {
		return err
	}
	if ep != nil {
		if err := m.plug(ctx, ep, sb); err != nil {
			return err
		}
	} else if err := m.alone(sb); err != nil {
		return err
	}
	if err := sb.Built(ctx); err != nil {
		return err
	}
	stdio, after, err := m.streams(sb, f)
	if err != nil {
		return err
	}
	defer closeAll(stdio.own)
	if err := m.enterGroup(<-group, sb); err != nil {
		after(false)
		return err
	}
	started, err := sb.Start(stdio.Stdio)
	if err != nil {
		after(false)
		return err
	}
	after(true)
	m.mu.Lock()
	m.sb, m.front, m.ending = sb, f, false
	r := &m.rec
	r.State, r.StartedAt, r.FinishedAt, r.ExitCode, r.Error = launcher.Running, time.Now().UTC(), time.Time{}, 0, ""
	r.PID, r.Argv, r.Env, r.User, r.Workdir, r.StopSignal, r.Volumes, r.Hidden, r.Walls = started.PID, started.Argv, started.Env, started.User, started.Workdir, started.Signal, started.Volumes, started.Hidden, started.Walls
	r.ControlGroup = ""
	if m.group != nil {
		r.ControlGroup = m.group.Path()
	}
	r.Ready = r.App.Ready == nil
	err = r.Write(m.s.doc.Dirs)
	stopping := m.stopping
	m.mu.Unlock()
	if err != nil {
		_ = sb.Signal(unix.SIGKILL)
		return err
	}
	if stopping { // asked to while it started
		_ = sb.Signal(unix.SIGKILL)
	}
	return nil
}

// alone brings up a sandbox that has no network.
func (m *managed) alone(sb *launcher.Sandbox) error {
	if len(m.rec.App.Ports) > 0 {
		return &launcher.Error{Message: "ports cannot be published without a network", Hint: "leave -p away, or --network none", Exit: launcher.ExitWhisk}
	}
	if err := sb.Loopback(); err != nil {
		return err
	}
	// 127.0.1.1 is where Debian's hosts(5) has the name of a machine without an address.
	own := launcher.HostLine{Addr: "127.0.1.1", Names: []string{m.hostname()}}
	return sb.Names(append([]launcher.HostLine{own}, m.extraHosts(netip.Addr{})...), nil, "")
}

// plug publishes the ports of a sandbox that has joined the network, and tells it its names.
func (m *managed) plug(ctx context.Context, ep *slirp.Endpoint, sb *launcher.Sandbox) error {
	if err := m.publishAll(ctx, ep); err != nil {
		return err
	}
	gateway, _ := m.s.net.Gateway()
	names := []string{m.hostname()}
	if m.rec.Project == "" && m.rec.Name != names[0] {
		names = append(names, m.rec.Name)
	}
	var hosts []launcher.HostLine
	for _, a := range []netip.Addr{ep.IPv4(), ep.IPv6()} {
		if a.IsValid() {
			hosts = append(hosts, launcher.HostLine{Addr: a.String(), Names: names})
		}
	}
	return sb.Names(append(hosts, m.extraHosts(gateway)...), []string{gateway.String()}, "")
}

// hostname is what the sandbox calls itself.
func (m *managed) hostname() string {
	return cmp.Or(m.rec.App.Hostname, m.rec.App.Name, m.rec.ID)
}

func (m *managed) extraHosts(gateway netip.Addr) []launcher.HostLine {
	var out []launcher.HostLine
	for _, h := range m.rec.App.ExtraHosts {
		addr := h.Addr
		if addr == "host-gateway" {
			addr = addressOf(gateway)
		}
		if addr != "" {
			out = append(out, launcher.HostLine{Addr: addr, Names: []string{h.Name}})
		}
	}
	return out
}

// unplug frees the host's ports first, so that they can be used again at once, and then leaves the network. A network
// of the sandbox's own is not left for good: it ends with this process, and the kernel takes it down in one go; link by
// link it would hold up the next start by some ten milliseconds.
func (m *managed) unplug(forGood bool) {
	m.mu.Lock()
	ports, ep := m.ports, m.ep
	m.ports, m.ep = nil, nil
	m.mu.Unlock()
	closePorts(ports)
	switch {
	case ep == nil:
	case forGood && m.rec.Network == m.rec.ID:
		m.s.mu.Lock()
		m.s.spent = true
		m.s.mu.Unlock()
	default:
		ep.Close()
	}
}

// over reports whether the sandbox has ended, and will not start again.
func (m *managed) over() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.finished
}

// firstBackoff is the pause before the first restart; each that follows is twice as long, up to lastBackoff.
const (
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = time.Minute
)

// lookAfter waits for the app's end, starts it again as its restart policy says, and takes everything down.
func (m *managed) lookAfter() {
	backoff := firstBackoff
	for {
		began := time.Now()
		<-m.sb.Exited()
		code := m.sb.ExitCode()
		m.mu.Lock()
		ports := m.ports
		m.ports, m.ending = nil, true
		if m.front != nil && m.front.master != nil {
			m.front.master.Close() // the command has its own
			m.front.master = nil
		}
		m.mu.Unlock()
		closePorts(ports)
		m.copies.Wait()
		if fault := faultOf(m.sb, code); fault != nil {
			m.mu.Lock()
			m.fault = fault
			m.mu.Unlock()
			m.finish(fault.Exit, fault.Message)
			return
		}
		oom := m.oom(code)
		m.leaveGroup()
		if !m.restarts(code) {
			if oom == nil {
				m.finish(code, "")
				return
			}
			m.mu.Lock()
			m.fault = oom
			m.mu.Unlock()
			m.finish(code, oom.Message)
			return
		}
		m.leaveFront(code, oom)
		m.unplug(false)
		m.sb.Close()
		if time.Since(began) > 10*time.Second {
			backoff = firstBackoff
		}
		for again := false; !again; backoff = min(2*backoff, lastBackoff) {
			if !m.pause(backoff) {
				m.finish(code, "")
				return
			}
			err := m.relaunch()
			if again = err == nil; again {
				continue
			}
			// What was in the way may be gone the next time: a port that another has, a folder that is not mounted.
			if code = launcher.AsError(err).Exit; !m.restarts(code) {
				m.finish(code, err.Error())
				return
			}
			m.mu.Lock()
			m.rec.PID, m.rec.Ports, m.rec.Ready, m.rec.Error = 0, nil, false, err.Error()
			_ = m.rec.Write(m.s.doc.Dirs) // the next change writes it again
			m.mu.Unlock()
		}
	}
}

// relaunch starts the app once more.
func (m *managed) relaunch() error {
	m.mu.Lock()
	m.rec.Restarts++
	m.mu.Unlock()
	logged, err := m.watchLog()
	if err != nil {
		return err
	}
	if err := m.launch(m.s.ctx, nil); err != nil {
		return err
	}
	go m.becomeReady(logged)
	return nil
}

// leaveFront tells the command in the foreground how the app has ended; what is started again runs in the background.
func (m *managed) leaveFront(code int, fault *launcher.Error) {
	m.mu.Lock()
	f := m.front
	m.front = nil
	m.mu.Unlock()
	if f != nil {
		f.code, f.fault = code, fault
		close(f.over)
	}
}

// faultOf says why a command that ended with this code was killed by whisk itself; nil: it was not.
func faultOf(sb *launcher.Sandbox, code int) *launcher.Error {
	if code != 128+int(unix.SIGKILL) {
		return nil
	}
	return sb.Fault()
}

// end gives the app's exit code, or why whisk has ended it.
func (m *managed) end() (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault != nil {
		return m.rec.ExitCode, m.fault
	}
	return m.rec.ExitCode, nil
}

// pause waits before a restart; false when the sandbox is asked to end meanwhile.
func (m *managed) pause(d time.Duration) bool {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		m.mu.Lock()
		stopping := m.stopping
		m.mu.Unlock()
		if stopping {
			return false
		}
	}
	return true
}

func (m *managed) restarts(code int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping {
		return false
	}
	switch r := m.rec.App.Restart; r.Policy {
	case "always", "unless-stopped":
		return true
	case "on-failure":
		return code != 0 && (r.Max == 0 || m.rec.Restarts < r.Max)
	}
	return false
}

// finish writes down the end, tells who waits, and only then takes the namespaces down: that takes the kernel
// tens of milliseconds, behind the user's back.
func (m *managed) finish(code int, fault string) {
	m.mu.Lock()
	if m.ep != nil {
		m.ep.FreeNames() // before the record says that the next sandbox may have the name
	}
	r := &m.rec
	m.finished = true
	r.State, r.ExitCode, r.FinishedAt, r.Error = launcher.Exited, code, time.Now().UTC(), fault
	r.PID, r.IPv4, r.IPv6, r.Ports, r.Ready, r.ControlGroup = 0, "", "", nil, false, ""
	if r.Remove || m.remove {
		_ = r.Forget(m.s.doc.Dirs)
	} else {
		_ = r.Write(m.s.doc.Dirs) // a full disk: the next command sees a keeper that is gone
	}
	if m.log != nil {
		m.log.Close()
		m.log = nil
	}
	m.mu.Unlock()
	m.drop()
}

// drop takes down what is left of a sandbox that does not run.
func (m *managed) drop() {
	if a := m.ahead; a != nil {
		m.ahead = nil
		a.drop()
	}
	m.once.Do(func() { close(m.ended) })
	m.unplug(true)
	m.mu.Lock()
	m.finished = true
	sb, id, log := m.sb, m.rec.ID, m.log
	remove := m.rec.Remove || m.remove || m.rec.State == launcher.Created
	m.log = nil
	m.mu.Unlock()
	if log != nil {
		log.Close()
	}
	if sb != nil {
		sb.Close()
	}
	m.leaveGroup()
	if remove {
		_ = m.forget()
	}
	m.s.mu.Lock()
	delete(m.s.sandboxes, id)
	m.hold.Close()
	m.s.mu.Unlock()
	close(m.gone)
	m.s.release()
}

// forget removes the sandbox's folder, and its anonymous volumes where that was asked for or where they were made for
// a start that has failed. Others stay, and belong to nobody.
func (m *managed) forget() error {
	m.mu.Lock()
	volumes, all := m.rec.Volumes, m.rec.Remove || m.volumes
	failed := m.rec.State == launcher.Created
	m.mu.Unlock()
	var faults []error
	for _, v := range volumes {
		inherited := m.instead != nil && slices.Contains(m.instead.rec.Volumes, v)
		if all || failed && !inherited {
			faults = append(faults, launcher.DiscardVolume(m.s.doc.Dirs, v))
		} else {
			faults = append(faults, launcher.OwnVolume(m.s.doc.Dirs, v, ""))
		}
	}
	return errors.Join(append(faults, launcher.RemoveHeldSandbox(m.s.doc.Dirs, m.rec.ID, all))...)
}
