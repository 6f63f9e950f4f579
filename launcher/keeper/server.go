package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/prefault"
	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/cgroup"
	"github.com/whisk-sandbox/whisk/slirp"
)

// maxRequest bounds the JSON of one request.
const maxRequest = 16 << 20

// server is the keeper's state.
type server struct {
	ctx context.Context // ends with the keeper
	doc *stage

	mu        sync.Mutex
	sandboxes map[string]*managed
	unwanted  map[string]bool // ids that must not start any more: see DownRequest.Coming
	active    int             // requests and sandboxes that keep the keeper
	leaving   bool            // no more work is taken
	spent     bool            // the network was one sandbox's own, which has ended: it takes no other
	idle      chan struct{}

	turn chan struct{} // full while an up starts apps

	netOnce sync.Once
	net     *slirp.Network
	netErr  error
	flows   *flowLog
	// settings are those of a network that was created; they are there with net.
	settings launcher.Network
	warnings warnings

	scoping sync.Mutex
	scope   *cgroup.Scope // once a sandbox has wanted a control group

	settled sync.Once

	settle   sync.Once // what can wait until the first sandbox runs
	sweeping sync.WaitGroup
}

func newServer(ctx context.Context, doc *stage) *server {
	return &server{ctx: ctx, doc: doc, sandboxes: map[string]*managed{}, unwanted: map[string]bool{}, idle: make(chan struct{}), turn: make(chan struct{}, 1), flows: newFlowLog()}
}

// serve answers requests until nothing is left to look after.
func (s *server) serve(l *listener) error {
	mux := http.NewServeMux()
	for path, h := range map[string]func(*http.Request, *reply) error{
		"/v1/run":           s.handleRun,
		"/v1/run-detached":  s.handleRunDetached,
		"/v1/exec":          s.handleExec,
		"/v1/exec-detached": s.handleExecDetached,
		"/v1/start":         s.handleStart,
		"/v1/signal":        s.handleSignal,
		"/v1/detach":        s.handleDetach,
		"/v1/up":            s.handleUp,
		"/v1/down":          s.handleDown,
		"/v1/network":       s.handleNetwork,
		"/v1/ports":         s.handlePorts,
		"/v1/update":        s.handleUpdate,
		"/v1/copy-out":      s.handleCopyOut,
		"/v1/copy-in":       s.handleCopyIn,
	} {
		mux.HandleFunc("POST "+path, s.handler(h))
	}
	srv := &http.Server{
		Handler: mux, ConnContext: withConn, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		// A keeper is started for a request; if its command dies before asking, there is nothing to stay for.
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				s.settleIn()
			}
		},
	}
	s.hold()
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	// The end of a login, or of the machine: apps get their stop signals while there is time.
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer signal.Stop(asked)
	for leaving := false; !leaving; {
		select {
		case err := <-done:
			return fmt.Errorf("serve control socket: %w", err)
		case <-asked:
			go s.stopAll(s.all(nil), DownRequest{}, nil)
		case <-s.idle:
			leaving = true
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return srv.Shutdown(ctx)
}

// tidy does what can wait until nobody does: an app may run for a few milliseconds only.
func (s *server) tidy() {
	select {
	case <-s.idle:
	case <-time.After(200 * time.Millisecond):
		// A keeper lives long and does little: memory matters more than the collector's time.
		debug.SetGCPercent(50)
	}
	_ = launcher.Sweep(s.doc.Dirs) // what stays is found again
}

// hold keeps the keeper; it fails when it is leaving already.
func (s *server) hold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving {
		return false
	}
	s.active++
	return true
}

func (s *server) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active--
	if s.active == 0 && !s.leaving {
		s.leaving = true
		close(s.idle)
	}
}

// reply is the stream of events that answers a request. It is safe for use by several goroutines.
type reply struct {
	mu sync.Mutex
	w  http.ResponseWriter
}

func (r *reply) send(ev Event) {
	b, err := json.Marshal(ev)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = r.w.Write(append(b, '\n')) // a client that is gone is noticed by its context
	if f, ok := r.w.(http.Flusher); ok {
		f.Flush()
	}
}

// settleIn ends the keeper's wait for the request that it was started for.
func (s *server) settleIn() { s.settled.Do(s.release) }

func (s *server) handler(h func(*http.Request, *reply) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out := &reply{w: w}
		if !s.hold() {
			out.send(Event{Type: EventError, Error: &launcher.Error{Message: "the keeper is leaving", Kind: launcher.KindLeaving, Exit: launcher.ExitWhisk}})
			return
		}
		defer s.release()
		s.settleIn()
		prefault.Stack()
		if err := h(r, out); err != nil {
			out.send(Event{Type: EventError, Error: launcher.AsError(err)})
			return
		}
		out.send(Event{Type: EventDone})
	}
}

// readBody reads a request's document whole, so that the server notices when the client goes away.
func readBody(r *http.Request, doc any) error {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxRequest+1))
	if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	if len(b) > maxRequest {
		return errors.New("read request: too long")
	}
	if err := json.Unmarshal(b, doc); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	return nil
}

func checkVersion(v int) error {
	if v != launcher.SpecVersion {
		return &launcher.Error{Message: fmt.Sprintf("this network's keeper is of another version of whisk (it speaks %d, asked %d)", launcher.SpecVersion, v), Hint: "whisk down, and up again", Exit: launcher.ExitWhisk}
	}
	return nil
}

// network makes the network with its first sandbox, whose egress policy it takes unless it was created with one.
func (s *server) network(ctx context.Context, egress string) (*slirp.Network, error) {
	s.netOnce.Do(func() {
		n, settings, err := makeNetwork(ctx, s.doc, egress, &s.warnings, s.flows.take)
		if err == nil {
			go s.flows.run()
		}
		s.mu.Lock()
		s.net, s.settings, s.netErr = n, settings, err
		s.mu.Unlock()
	})
	return s.net, s.netErr
}

// endNetwork ends every flow and takes the network down, so that the egress log is whole.
func (s *server) endNetwork() error {
	s.netOnce.Do(func() {}) // waits for one that is being made; nothing makes one from now on
	if s.net == nil {
		return nil
	}
	err := s.net.Close()
	s.flows.close()
	return err
}

// createAhead creates a sandbox and makes what can be made ahead meanwhile.
func (s *server) createAhead(ctx context.Context, spec *launcher.Spec) (*managed, error) {
	if spec.Name == "" {
		spec.Name = spec.ID
	}
	a := s.goAhead(spec, netip.Addr{})
	m, err := s.create(ctx, spec, nil)
	if err != nil {
		a.drop()
		return nil, err
	}
	m.ahead = a
	return m, nil
}

// all gives the sandboxes of these ids; of all when there are none.
func (s *server) all(ids []string) []*managed {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*managed
	for id, m := range s.sandboxes {
		if len(ids) == 0 || slices.Contains(ids, id) {
			out = append(out, m)
		}
	}
	return out
}

// find gives the sandbox that a request is about, and what of it runs now: a restart puts another in its place.
func (s *server) find(r *http.Request) (*managed, *launcher.Sandbox, error) {
	id := r.URL.Query().Get("id")
	s.mu.Lock()
	m := s.sandboxes[id]
	s.mu.Unlock()
	if m != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
	}
	if m == nil || m.sb == nil { // it is being started, or copied from or to
		return nil, nil, &launcher.Error{Message: fmt.Sprintf("sandbox %s is not running", strconv.Quote(id)), Hint: "whisk ps -a", Kind: launcher.KindNotFound, Exit: launcher.ExitWhisk}
	}
	return m, m.sb, nil
}

func (s *server) handleRun(r *http.Request, out *reply) error {
	var spec launcher.Spec
	if err := readBody(r, &spec); err != nil {
		return err
	}
	files := takeFiles(r)
	defer closeAll(files)
	want := 3
	if spec.App.TTY {
		want = 1
	}
	if len(files) != want {
		return fmt.Errorf("read request: %d descriptors came and %d are needed", len(files), want)
	}
	m, err := s.createAhead(r.Context(), &spec)
	if err != nil {
		return err
	}
	front := &front{files: files, gone: r.Context().Done(), done: make(chan struct{}), over: make(chan struct{})}
	if err := m.start(r.Context(), front); err != nil {
		m.drop()
		return err
	}
	out.send(Event{Type: EventStarted, ID: m.rec.ID})
	select {
	case <-m.ended:
	case <-front.done: // detached
		return nil
	case <-front.over: // it goes on in the background
		if front.fault != nil {
			return front.fault
		}
		out.send(Event{Type: EventExited, ID: m.rec.ID, Code: front.code})
		return nil
	case <-r.Context().Done():
		m.kill()
		<-m.ended
	}
	code, err := m.end()
	if err != nil {
		return err
	}
	out.send(Event{Type: EventExited, ID: m.rec.ID, Code: code})
	return nil
}

func (s *server) handleRunDetached(r *http.Request, out *reply) error {
	var spec launcher.Spec
	if err := readBody(r, &spec); err != nil {
		return err
	}
	m, err := s.createAhead(r.Context(), &spec)
	if err != nil {
		return err
	}
	if err := m.start(r.Context(), nil); err != nil {
		m.drop()
		return err
	}
	if r.Context().Err() != nil { // its command was killed: nobody knows of it
		m.kill()
		<-m.ended
		return r.Context().Err()
	}
	out.send(Event{Type: EventStarted, ID: m.rec.ID})
	return nil
}

func (s *server) handleStart(r *http.Request, out *reply) error {
	id := r.URL.Query().Get("id")
	s.mu.Lock()
	m := s.sandboxes[id]
	s.mu.Unlock()
	if m != nil {
		if !m.over() {
			return nil
		}
		select { // it has ended, and is being taken down
		case <-m.gone:
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
	s.mu.Lock()
	spent := s.spent
	s.mu.Unlock()
	if spent {
		return &launcher.Error{Message: "the keeper is leaving", Kind: launcher.KindLeaving, Exit: launcher.ExitWhisk}
	}
	rec, err := launcher.ReadRecord(s.doc.Dirs, id)
	if err != nil {
		return notFound(id)
	}
	m, err = s.resume(r.Context(), rec, false)
	if errors.Is(err, errStarting) {
		return nil
	}
	if err != nil {
		return err
	}
	m.rec.Restarts = 0 // it has as many again
	logged, err := m.watchLog()
	if err == nil {
		err = m.start(r.Context(), nil)
	}
	if err != nil {
		m.drop()
		return err
	}
	go m.becomeReady(logged)
	out.send(Event{Type: EventStarted, ID: m.rec.ID})
	return nil
}

func (s *server) handleSignal(r *http.Request, _ *reply) error {
	n, err := strconv.Atoi(r.URL.Query().Get("signal"))
	if err != nil || n < 1 || n > 64 {
		return fmt.Errorf("read request: no signal %s", strconv.Quote(r.URL.Query().Get("signal")))
	}
	m, _, err := s.find(r)
	if err != nil {
		return err
	}
	return m.signal(r.URL.Query().Get("exec"), unix.Signal(n))
}

func (s *server) handleDetach(r *http.Request, _ *reply) error {
	m, _, err := s.find(r)
	if err != nil {
		return err
	}
	return m.detach()
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// addressOf gives the text of an address, empty for none.
func addressOf(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
