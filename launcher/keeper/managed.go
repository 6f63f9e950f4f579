package keeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/cgroup"
	"github.com/whisk-sandbox/whisk/slirp"
)

// defaultStopTimeout is how long stop waits before SIGKILL; the same as Docker's.
const defaultStopTimeout = 10 * time.Second

// managed is a sandbox that the keeper looks after, from its creation until it has ended for good.
type managed struct {
	s    *server
	base *launcher.Base

	hold     *os.File // the lock of its folder, until it is gone
	mu       sync.Mutex
	rec      launcher.Record
	sb       *launcher.Sandbox
	group    *cgroup.Group // nil: it has none of its own
	ep       *slirp.Endpoint
	ports    []*port
	log      *launcher.Log
	copies   sync.WaitGroup // of output to the log
	finished bool           // it has ended, and does not start again
	front    *front         // the command in the foreground, if any
	execs    map[string]*launcher.Process
	stopping bool // asked to end: no restart
	lines    func(launcher.LogLine)
	fault    *launcher.Error // why whisk itself has ended the app
	ahead    *ahead          // of the first start, if something was made ahead

	ended chan struct{} // closed when the app has ended for good and its ports are free, or never came to run
	once  sync.Once     // closes ended
	gone  chan struct{} // closed when everything of it has been taken down
}

// front is a command that runs a sandbox in the foreground.
type front struct {
	files  []*os.File // three streams, or the terminal's channel
	master *os.File
	gone   <-chan struct{} // closed when the command has gone
	done   chan struct{}   // closed when it detaches
	once   sync.Once
}

// create makes the sandbox's folder and record, or takes up those of one that has ended.
func (s *server) create(ctx context.Context, spec *launcher.Spec, old *launcher.Record) (*managed, error) {
	if err := checkVersion(spec.Version); err != nil {
		return nil, err
	}
	if !validID(spec.ID) {
		return nil, fmt.Errorf("sandbox id %s is not 12 hex digits", strconv.Quote(spec.ID))
	}
	if spec.KeeperName() != s.doc.Network {
		return nil, fmt.Errorf("sandbox %s is for network %s, and this keeper holds %s", spec.ID, strconv.Quote(spec.KeeperName()), strconv.Quote(s.doc.Network))
	}
	base, err := s.base(ctx, spec)
	if err != nil {
		return nil, err
	}
	m := &managed{s: s, base: base, ended: make(chan struct{}), gone: make(chan struct{}), execs: map[string]*launcher.Process{}}
	if old != nil {
		m.rec = *old
	} else {
		m.rec = launcher.Record{Spec: *spec, State: launcher.Created, CreatedAt: time.Now().UTC(), ImageID: base.ID, ImageDigest: base.Digest}
	}
	if !s.hold() {
		return nil, &launcher.Error{Message: "the keeper is leaving", Kind: launcher.KindLeaving, Exit: launcher.ExitWhisk}
	}
	if err := m.enter(old != nil); err != nil {
		s.release()
		return nil, err
	}
	s.flows.place(s.doc.Dirs, spec)
	return m, nil
}

// errStarting says that another request is starting the sandbox.
var errStarting = errors.New("the sandbox is being started")

// enter gives the sandbox its name and folder.
func (m *managed) enter(known bool) error {
	d := m.s.doc.Dirs
	if known {
		if err := m.takeFolder(); err != nil {
			return err
		}
	} else {
		if err := os.MkdirAll(d.Sandboxes(), 0o700); err != nil {
			return fmt.Errorf("make sandbox: %w", err)
		}
		if m.rec.Name == "" || m.rec.Name == m.rec.ID { // nobody else has it
			m.rec.Name = m.rec.ID
			if err := m.makeFolder(); err != nil {
				return err
			}
		} else if err := m.takeName(); err != nil {
			return err
		}
	}
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.s.sandboxes[m.rec.ID] = m // whose folder we hold
	return nil
}

// takeFolder holds the folder of a sandbox that has ended, if nobody has removed it meanwhile.
func (m *managed) takeFolder() error {
	d, id := m.s.doc.Dirs, m.rec.ID
	hold, err := launcher.HoldSandbox(d, id)
	if errors.Is(err, launcher.ErrSandboxHeld) {
		m.s.mu.Lock()
		defer m.s.mu.Unlock()
		if m.s.sandboxes[id] != nil {
			return errStarting
		}
		return notFound(id)
	}
	if err == nil {
		var rec *launcher.Record
		if rec, err = launcher.ReadRecord(d, id); err == nil {
			m.hold, m.rec = hold, *rec
			return nil
		}
		hold.Close()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return notFound(id)
	}
	return err
}

func notFound(id string) error {
	return &launcher.Error{Message: fmt.Sprintf("no sandbox %s", strconv.Quote(id)), Kind: launcher.KindNotFound, Exit: launcher.ExitWhisk}
}

func (m *managed) makeFolder() error {
	if err := os.Mkdir(m.s.doc.Dirs.Sandbox(m.rec.ID), 0o711); err != nil {
		return fmt.Errorf("make sandbox: %w", err)
	}
	hold, err := launcher.HoldSandbox(m.s.doc.Dirs, m.rec.ID)
	if err != nil {
		return err
	}
	m.hold = hold
	if err := m.rec.Write(m.s.doc.Dirs); err != nil {
		hold.Close()
		return err
	}
	return nil
}

// takeName makes the folder while no other keeper can give the same name away.
func (m *managed) takeName() error {
	d := m.s.doc.Dirs
	if err := config.ValidName(m.rec.Name); err != nil {
		return err
	}
	lock, err := os.Open(d.Sandboxes())
	if err != nil {
		return fmt.Errorf("lock names: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock names: %w", err)
	}
	records, err := launcher.Records(d)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.Name == m.rec.Name {
			return &launcher.Error{Message: fmt.Sprintf("the name %q is taken by sandbox %s", r.Name, r.ID), Hint: "whisk rm " + r.Name + ", or choose another --name", Exit: launcher.ExitWhisk}
		}
	}
	return m.makeFolder()
}

func validID(id string) bool {
	if len(id) != 12 {
		return false
	}
	for _, c := range id {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

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
			m.rec.Volumes = sb.Volumes()
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
	m.sb, m.front = sb, f
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

// lookAfter waits for the app's end, starts it again as its restart policy says, and takes everything down.
func (m *managed) lookAfter() {
	backoff := 100 * time.Millisecond
	for {
		began := time.Now()
		<-m.sb.Exited()
		code := m.sb.ExitCode()
		m.mu.Lock()
		ports := m.ports
		m.ports = nil
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
		m.unplug(false)
		m.sb.Close()
		if time.Since(began) > 10*time.Second {
			backoff = 100 * time.Millisecond
		}
		if !m.pause(backoff) {
			m.finish(code, "")
			return
		}
		backoff = min(2*backoff, time.Minute)
		m.mu.Lock()
		m.rec.Restarts++
		m.mu.Unlock()
		logged, err := m.watchLog()
		if err == nil {
			err = m.launch(m.s.ctx, nil)
		}
		if err != nil {
			m.finish(launcher.AsError(err).Exit, err.Error())
			return
		}
		go m.becomeReady(logged)
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
	if m.stopping || m.front != nil {
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
	if r.Remove {
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
	remove := m.rec.Remove || m.rec.State == launcher.Created
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

// forget removes the sandbox's folder and anonymous volumes, also those that no record names yet.
func (m *managed) forget() error {
	var faults []error
	for _, v := range m.rec.Volumes {
		if err := launcher.DiscardVolume(m.s.doc.Dirs, v); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(append(faults, launcher.RemoveHeldSandbox(m.s.doc.Dirs, m.rec.ID, true))...)
}

func (m *managed) code() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rec.ExitCode
}

func (m *managed) snapshot() *launcher.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.rec
	r.Ports = slices.Clone(r.Ports)
	return &r
}

func (m *managed) signal(exec string, sig unix.Signal) error {
	m.mu.Lock()
	p, sb := m.execs[exec], m.sb
	m.mu.Unlock()
	if exec != "" {
		if p == nil {
			return nil // it has ended
		}
		return p.Signal(sig)
	}
	if sb == nil {
		return nil
	}
	return sb.Signal(sig)
}

func (m *managed) kill() {
	m.mu.Lock()
	m.stopping = true
	sb := m.sb
	m.mu.Unlock()
	if sb != nil {
		_ = sb.Signal(unix.SIGKILL)
	}
}

// stop asks the app to end and kills it when it does not in time. It returns when the app has ended for good.
func (m *managed) stop(timeout *time.Duration) {
	m.mu.Lock()
	m.stopping = true
	wait := defaultStopTimeout
	if m.rec.App.StopTimeout != nil {
		wait = *m.rec.App.StopTimeout
	}
	if timeout != nil {
		wait = *timeout
	}
	sb, sig := m.sb, unix.Signal(m.rec.StopSignal)
	m.mu.Unlock()
	if sb != nil {
		_ = sb.Signal(sig)
	}
	var late <-chan time.Time // never, for one that may take for ever
	if wait >= 0 {
		late = time.After(wait)
	}
	select {
	case <-m.ended:
	case <-late:
		m.kill()
		<-m.ended
	}
}
