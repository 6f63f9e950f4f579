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
	ending   bool // the app has ended, and its output is read to the end
	remove   bool // asked to be forgotten when it has ended, besides rec.Remove
	volumes  bool // and its anonymous volumes with it
	copying  bool // it has ended, and is only copied from or to
	instead  *predecessor
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
	over   chan struct{}   // closed when the app has ended and is started again without the command
	code   int             // of that end
	fault  *launcher.Error // and why, if whisk or the kernel ended it
}

// create makes the sandbox's folder and record, in place of an earlier one of the same app if there is one: that is
// forgotten, and its anonymous volumes are handed on. On an error the earlier one has what it had.
func (s *server) create(ctx context.Context, spec *launcher.Spec, instead *predecessor) (*managed, error) {
	base, err := s.checked(ctx, spec, "")
	if err != nil {
		return nil, err
	}
	m := s.manage(base)
	m.instead = instead
	m.rec = launcher.Record{Spec: *spec, State: launcher.Created, CreatedAt: time.Now().UTC(), ImageID: base.ID, ImageDigest: base.Digest}
	if instead != nil {
		m.rec.Volumes = slices.Clone(instead.rec.Volumes)
	}
	if err := s.admit(m, m.makeNew); err != nil {
		return nil, err
	}
	if instead != nil {
		if err := instead.handOn(spec.ID); err != nil {
			m.fail(err)
			return nil, err
		}
	}
	return m, nil
}

// resume takes up the folder of a sandbox that has ended, to start it or to copy from or to it. It stands on the image it
// was made from, whatever that one's name stands for now.
func (s *server) resume(ctx context.Context, rec *launcher.Record, copying bool) (*managed, error) {
	base, err := s.checked(ctx, &rec.Spec, rec.ImageID)
	if err != nil {
		return nil, err
	}
	m := s.manage(base)
	m.rec, m.copying = *rec, copying
	if err := s.admit(m, m.takeFolder); err != nil {
		return nil, err
	}
	return m, nil
}

// checked finds the base of a spec that this keeper can hold; imageID is base's.
func (s *server) checked(ctx context.Context, spec *launcher.Spec, imageID string) (*launcher.Base, error) {
	if err := checkVersion(spec.Version); err != nil {
		return nil, err
	}
	if !validID(spec.ID) {
		return nil, fmt.Errorf("sandbox id %s is not 12 hex digits", strconv.Quote(spec.ID))
	}
	if spec.KeeperName() != s.doc.Network {
		return nil, fmt.Errorf("sandbox %s is for network %s, and this keeper holds %s", spec.ID, strconv.Quote(spec.KeeperName()), strconv.Quote(s.doc.Network))
	}
	return s.base(ctx, spec, imageID)
}

func (s *server) manage(base *launcher.Base) *managed {
	return &managed{s: s, base: base, ended: make(chan struct{}), gone: make(chan struct{}), execs: map[string]*launcher.Process{}}
}

// admit has the sandbox enter its folder, and looks after it from then on.
func (s *server) admit(m *managed, enter func() error) error {
	if !s.hold() {
		return &launcher.Error{Message: "the keeper is leaving", Kind: launcher.KindLeaving, Exit: launcher.ExitWhisk}
	}
	if err := enter(); err != nil {
		s.release()
		return err
	}
	s.mu.Lock()
	unwanted := s.unwanted[m.rec.ID] && m.rec.State == launcher.Created
	if !unwanted {
		s.sandboxes[m.rec.ID] = m // whose folder we hold
	}
	s.mu.Unlock()
	if unwanted {
		_ = launcher.RemoveHeldSandbox(s.doc.Dirs, m.rec.ID, false) // what stays is swept
		m.hold.Close()
		s.release()
		return errUnwanted()
	}
	s.flows.place(s.doc.Dirs, &m.rec.Spec)
	return nil
}

// errStarting says that another request is starting the sandbox.
var errStarting = errors.New("the sandbox is being started")

// errUnwanted says that a sandbox was asked to end before it came to be.
func errUnwanted() error {
	return &launcher.Error{Message: "stopped before it had started", Exit: launcher.ExitWhisk}
}

// makeNew gives a new sandbox its name and folder.
func (m *managed) makeNew() error {
	if err := os.MkdirAll(m.s.doc.Dirs.Sandboxes(), 0o700); err != nil {
		return fmt.Errorf("make sandbox: %w", err)
	}
	if m.rec.Name == "" || m.rec.Name == m.rec.ID { // nobody else has it
		m.rec.Name = m.rec.ID
		return m.makeFolder()
	}
	return m.takeName()
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
		if r.Name == m.rec.Name && (m.instead == nil || r.ID != m.instead.rec.ID) {
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
