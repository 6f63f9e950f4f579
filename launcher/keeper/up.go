package keeper

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/whisk-sandbox/whisk/launcher"
)

// handleUp makes and starts the sandboxes of a project, each when those it depends on are ready, others at the
// same time. If one fails, or the client goes away before all are ready, those that it started are stopped again.
// Requests of several clients take their turns, so that the next finds whole apps or none.
func (s *server) handleUp(r *http.Request, out *reply) error {
	var req UpRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	if err := s.allImages(r.Context(), req.Specs); err != nil {
		return err
	}
	done, err := s.takeTurn(r.Context(), out)
	if err != nil {
		return err
	}
	defer done()
	if err := s.forgetFlows(req.Specs); err != nil {
		return err
	}
	u := &up{s: s, req: &req, out: out, ready: map[string]chan struct{}{}}
	for _, spec := range req.Specs {
		u.ready[spec.App.Name] = make(chan struct{})
	}
	err = u.run(r.Context())
	if err == nil && r.Context().Err() != nil {
		err = r.Context().Err()
	}
	if err != nil {
		u.undo()
		return err
	}
	if !req.Attach {
		return nil
	}
	done()
	for _, m := range u.all() {
		select {
		case <-m.ended:
			if _, err := m.end(); err != nil {
				out.send(Event{Type: EventWarning, App: m.rec.App.Name, Text: err.Error()})
			}
			out.send(Event{Type: EventExited, App: m.rec.App.Name, ID: m.rec.ID, Code: m.code()})
		case <-r.Context().Done():
			s.stopAll(u.all(), DownRequest{}, nil)
			return r.Context().Err()
		}
	}
	return nil
}

// takeTurn waits for the up that is under way. done gives the turn away, and may be called more than once.
func (s *server) takeTurn(ctx context.Context, out *reply) (done func(), err error) {
	select {
	case s.turn <- struct{}{}:
	default:
		out.send(Event{Type: EventWarning, Text: "waiting for another up of this project"})
		select {
		case s.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return sync.OnceFunc(func() { <-s.turn }), nil
}

// forgetFlows begins a new egress log with a network that comes up; down has left the old one to be read.
func (s *server) forgetFlows(specs []launcher.Spec) error {
	if len(s.all(nil)) > 0 {
		return nil
	}
	for i := range specs {
		s.flows.place(s.doc.Dirs, &specs[i])
	}
	return s.flows.clear()
}

// up is one request under way.
type up struct {
	s     *server
	req   *UpRequest
	out   *reply
	ready map[string]chan struct{} // closed when the app is

	mu      sync.Mutex
	started []*managed
	kept    []*managed
}

func (u *up) all() []*managed {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Concat(u.started, u.kept)
}

func (u *up) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range u.req.Specs {
		spec := &u.req.Specs[i]
		wg.Go(func() {
			if err := u.app(ctx, spec); err != nil {
				cancel(err) // the first one counts: it makes the others fail
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// app brings one app up.
func (u *up) app(ctx context.Context, spec *launcher.Spec) error {
	name := spec.App.Name
	var waits []string
	for _, dep := range spec.App.DependsOn {
		if u.ready[dep] != nil {
			waits = append(waits, dep)
		}
	}
	if len(waits) > 0 {
		u.out.send(Event{Type: EventWaiting, App: name, Text: strings.Join(waits, ", ")})
	}
	for _, dep := range waits {
		select {
		case <-u.ready[dep]:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m, volumes, err := u.s.existing(ctx, spec, u.req.Recreate)
	if err != nil {
		return err
	}
	if m != nil {
		u.mu.Lock()
		u.kept = append(u.kept, m)
		u.mu.Unlock()
		u.out.send(Event{Type: EventKept, App: name, ID: m.rec.ID, Record: m.snapshot()})
		close(u.ready[name])
		return nil
	}
	m, err = u.s.create(ctx, spec, nil)
	if err != nil {
		return appError(name, err)
	}
	m.rec.Volumes = volumes
	logged, err := m.watchLog()
	if err == nil {
		err = m.start(ctx, nil)
	}
	if err != nil {
		m.drop()
		return appError(name, err)
	}
	u.mu.Lock()
	u.started = append(u.started, m)
	u.mu.Unlock()
	u.out.send(Event{Type: EventStarted, App: name, ID: m.rec.ID, Record: m.snapshot()})
	if err := m.awaitReady(ctx, logged); err != nil {
		return err
	}
	u.out.send(Event{Type: EventReady, App: name, ID: m.rec.ID})
	close(u.ready[name])
	return nil
}

// appError says which app a fault is about.
func appError(name string, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("app %q: %w", name, err)
}

// undo stops and forgets what this request has started.
func (u *up) undo() {
	u.mu.Lock()
	started := slices.Clone(u.started)
	u.mu.Unlock()
	u.s.stopAll(started, DownRequest{Remove: true}, nil)
}

// existing finds the sandbox that a project's app has already. One that runs as asked is kept; any other is
// stopped and forgotten, and its anonymous volumes are handed on.
func (s *server) existing(ctx context.Context, spec *launcher.Spec, recreate bool) (*managed, []string, error) {
	s.mu.Lock()
	var running *managed
	for _, m := range s.sandboxes {
		if m.rec.Project == spec.Project && m.rec.App.Name == spec.App.Name {
			running = m
		}
	}
	s.mu.Unlock()
	if running != nil {
		base, err := s.base(ctx, spec)
		if err != nil {
			return nil, nil, appError(spec.App.Name, err)
		}
		// A pull may have moved the image's name to another.
		if !recreate && sameSpec(&running.rec.Spec, spec) && running.rec.ImageID == base.ID {
			select {
			case <-running.ended:
			default:
				return running, nil, nil
			}
		}
		running.stop(nil)
		<-running.gone
	}
	records, err := launcher.Records(s.doc.Dirs)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range records {
		if r.Project == spec.Project && r.App.Name == spec.App.Name && r.Project != "" {
			if err := launcher.RemoveSandbox(s.doc.Dirs, r.ID, false); err != nil {
				return nil, nil, err
			}
			return nil, r.Volumes, nil
		}
	}
	return nil, nil, nil
}

// sameSpec compares what was asked; the id is new each time.
func sameSpec(a, b *launcher.Spec) bool {
	x, y := *a, *b
	x.ID, y.ID = "", ""
	return reflect.DeepEqual(normal(&x), normal(&y))
}

func (s *server) handleDown(r *http.Request, out *reply) error {
	var req DownRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	s.stopAll(s.all(req.IDs), req, out)
	return nil
}

// stopAll ends sandboxes side by side, each after those that depend on it.
func (s *server) stopAll(chosen []*managed, req DownRequest, out *reply) {
	var wg sync.WaitGroup
	for _, m := range chosen {
		if req.Remove {
			m.mu.Lock()
			m.rec.Remove = true
			m.mu.Unlock()
		}
		wg.Go(func() {
			for _, other := range chosen {
				if other.rec.Project == m.rec.Project && slices.Contains(other.rec.App.DependsOn, m.rec.App.Name) {
					<-other.ended
				}
			}
			m.stop(req.Timeout)
			if out != nil {
				out.send(Event{Type: EventStopped, App: m.rec.App.Name, ID: m.rec.ID, Code: m.code()})
			}
			<-m.gone
			if out != nil && req.Remove {
				out.send(Event{Type: EventRemoved, App: m.rec.App.Name, ID: m.rec.ID})
			}
		})
	}
	wg.Wait()
}
