package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	select {
	case <-m.ended:
	case <-time.After(wait):
		m.kill()
		<-m.ended
	}
}
