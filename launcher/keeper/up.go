package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/whisk-sandbox/whisk/launcher"
)

// handleUp makes and starts the sandboxes of a project, each when those it depends on are ready, others at the
// same time. If one fails, or the client goes away before all are ready, those that it started are stopped again, and kept
// as they are, with their logs, until the next up takes their places or down forgets them. Requests of several clients take their turns, so that the next finds whole apps or none.
func (s *server) handleUp(r *http.Request, out *reply) error {
	var req UpRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	images, err := s.allImages(r.Context(), req.Specs)
	if err != nil {
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
	u := &up{s: s, req: &req, out: out, images: images, ready: map[string]chan struct{}{}}
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
	var wg sync.WaitGroup
	for _, m := range u.all() {
		wg.Go(func() {
			select {
			case <-m.ended:
			case <-r.Context().Done():
				return
			}
			if _, err := m.end(); err != nil {
				out.send(Event{Type: EventWarning, App: m.rec.App.Name, Text: err.Error()})
			}
			out.send(Event{Type: EventExited, App: m.rec.App.Name, ID: m.rec.ID, Code: m.code()})
		})
	}
	wg.Wait()
	if err := r.Context().Err(); err != nil {
		s.stopAll(u.all(), DownRequest{}, nil)
		return err
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
	s      *server
	req    *UpRequest
	out    *reply
	images map[string]string        // the id of each app's image
	ready  map[string]chan struct{} // closed when the app is

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
	m, old, err := u.s.existing(spec, u.images[name], u.req.Recreate)
	if err != nil {
		return appError(name, err)
	}
	if m != nil {
		return u.keep(ctx, m)
	}
	if old != nil {
		defer old.hold.Close()
	}
	m, err = u.s.create(ctx, spec, old)
	if err != nil {
		return appError(name, err)
	}
	logged, err := m.watchLog()
	if err == nil {
		err = m.start(ctx, nil)
	}
	if err != nil {
		m.fail(err)
		return appError(name, err)
	}
	u.mu.Lock()
	u.started = append(u.started, m)
	u.mu.Unlock()
	rec := m.snapshot()
	u.out.send(Event{Type: EventStarted, App: name, ID: rec.ID, IPv4: rec.IPv4, Ports: rec.Ports})
	if err := m.awaitReady(ctx, logged); err != nil {
		return err
	}
	u.out.send(Event{Type: EventReady, App: name, ID: m.rec.ID})
	close(u.ready[name])
	return nil
}

// keep leaves an app that runs as it is, and waits for it as for one that was started: whoever started it reads its log.
func (u *up) keep(ctx context.Context, m *managed) error {
	u.mu.Lock()
	u.kept = append(u.kept, m)
	u.mu.Unlock()
	rec := m.snapshot()
	u.out.send(Event{Type: EventKept, App: rec.App.Name, ID: rec.ID})
	if !rec.Ready {
		if err := m.awaitReady(ctx, nil); err != nil {
			return err
		}
		u.out.send(Event{Type: EventReady, App: rec.App.Name, ID: rec.ID})
	}
	close(u.ready[rec.App.Name])
	return nil
}

// fail ends a sandbox of a project that did not start: it is kept, as one that has ended with that error, for the next
// up to take its place and its anonymous volumes. One that was only interrupted and has nothing to keep is forgotten.
func (m *managed) fail(err error) {
	if errors.Is(err, context.Canceled) {
		if m.instead == nil {
			m.drop()
			return
		}
		err = errUnwanted()
	}
	m.finish(launcher.AsError(err).Exit, err.Error())
}

// appError says which app a fault is about.
func appError(name string, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("app %q: %w", name, err)
}

// undo stops what this request has started.
func (u *up) undo() {
	u.mu.Lock()
	started := slices.Clone(u.started)
	u.mu.Unlock()
	u.s.stopAll(started, DownRequest{}, nil)
}

// predecessor is the sandbox that an app had before, ended and held, so that nobody starts or removes it.
type predecessor struct {
	dirs launcher.Dirs
	rec  *launcher.Record
	hold *os.File
}

// handOn forgets the sandbox, and gives its anonymous volumes to the one of this id, whose record names them already.
func (p *predecessor) handOn(id string) error {
	if err := launcher.RemoveHeldSandbox(p.dirs, p.rec.ID, false); err != nil {
		return err
	}
	var faults []error
	for _, v := range p.rec.Volumes {
		faults = append(faults, launcher.OwnVolume(p.dirs, v, id))
	}
	return errors.Join(faults...)
}

// existing finds the sandbox that a project's app has already. One that runs as asked, on the image of that id, is kept;
// any other is stopped, for a new one to take its place.
func (s *server) existing(spec *launcher.Spec, imageID string, recreate bool) (*managed, *predecessor, error) {
	s.mu.Lock()
	var running *managed
	for _, m := range s.sandboxes {
		if m.rec.Project == spec.Project && m.rec.App.Name == spec.App.Name {
			running = m
		}
	}
	unwanted := s.unwanted[spec.ID]
	s.mu.Unlock()
	if unwanted {
		return nil, nil, errUnwanted()
	}
	if running != nil {
		if rec := running.snapshot(); !recreate && !running.copying && rec.ImageID == imageID && sameSpec(rec.AskedSpec(), spec) {
			select {
			case <-running.ended:
			default:
				return running, nil, nil
			}
		}
		running.stop(nil)
		<-running.gone
	}
	old, err := s.ended(spec.Project, spec.App.Name)
	return nil, old, err
}

// ended takes hold of the sandbox that an app of a project had; nil: it had none. If there are several, since a keeper
// was killed between two, the newest has what they had.
func (s *server) ended(project, app string) (*predecessor, error) {
	records, err := launcher.Records(s.doc.Dirs)
	if err != nil || project == "" {
		return nil, err
	}
	var own []launcher.Record
	for _, r := range records {
		if r.Project == project && r.App.Name == app {
			own = append(own, r)
		}
	}
	if len(own) == 0 {
		return nil, nil
	}
	last := own[len(own)-1].ID
	for _, r := range own[:len(own)-1] {
		if err := launcher.RemoveSandbox(s.doc.Dirs, r.ID, false); err != nil {
			return nil, err
		}
	}
	hold, err := launcher.HoldSandbox(s.doc.Dirs, last)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rec, err := launcher.ReadRecord(s.doc.Dirs, last)
	if err != nil {
		hold.Close()
		return nil, err
	}
	return &predecessor{s.doc.Dirs, rec, hold}, nil
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
	if req.Coming {
		s.mu.Lock()
		for _, id := range req.IDs {
			s.unwanted[id] = true
		}
		s.mu.Unlock()
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
			m.remove, m.volumes = true, m.volumes || req.Volumes
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
