package keeper

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/slirp"
)

// port is one published port of a sandbox.
//
//	held (the app is not ready: clients are refused) ── open ──▶ live ──▶ closed
type port struct {
	asked config.Port // of length 1
	at    launcher.PublishedPort
	hold  *slirp.Hold      // until the app is ready
	live  *slirp.Published // from then on
}

func (p *port) close() {
	if p.hold != nil {
		p.hold.Close()
	}
	if p.live != nil {
		p.live.Close()
	}
}

func closePorts(ports []*port) {
	for _, p := range ports {
		p.close()
	}
}

// singles spreads ranges out, since whisk port takes single ports away.
func singles(ports []config.Port) []config.Port {
	var out []config.Port
	for _, p := range ports {
		for i := range max(p.Count, 1) {
			one := p
			one.Count, one.App = 1, p.App+i
			if p.Host != 0 {
				one.Host += i
			}
			out = append(out, one)
		}
	}
	return out
}

// publish forwards a port, or holds it until the app is ready.
func (m *managed) publish(ctx context.Context, ep *slirp.Endpoint, asked config.Port, hold bool) (*port, error) {
	p := &port{asked: asked}
	if hold {
		h, err := slirp.HoldPorts(asked)
		if err != nil {
			return nil, err
		}
		held := h.Ports()[0]
		p.hold, p.at = h, launcher.PublishedPort{HostIP: held.Host.Addr().String(), HostPort: held.Host.Port(), AppPort: held.App, Protocol: held.Protocol}
		return p, nil
	}
	published, err := m.s.net.Publish(ctx, ep, asked)
	if err != nil {
		return nil, err
	}
	q := published[0]
	p.live, p.at = q, launcher.PublishedPort{HostIP: q.HostAddr().Addr().String(), HostPort: q.HostAddr().Port(), AppPort: q.AppPort, Protocol: q.Protocol}
	return p, nil
}

// publishAll publishes what a sandbox begins with: what whisk port has made of it, or else what its app says. Until it is
// through, nothing can be added.
func (m *managed) publishAll(ctx context.Context, ep *slirp.Endpoint) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ep = ep
	m.rec.IPv4, m.rec.IPv6, m.rec.Ports = addressOf(ep.IPv4()), addressOf(ep.IPv6()), nil
	asked := m.rec.AskedPorts
	if asked == nil {
		asked = singles(m.rec.App.Ports)
		if m.rec.PublishAll {
			var err error
			if asked, err = launcher.ExposedPorts(m.base.Config.ExposedPorts, asked); err != nil {
				return err
			}
		}
	}
	for _, a := range asked {
		p, err := m.publish(ctx, ep, a, m.rec.App.Ready != nil)
		if err != nil {
			return err // the caller unplugs
		}
		m.ports = append(m.ports, p)
		m.rec.Ports = append(m.rec.Ports, p.at)
	}
	return nil
}

// open serves the ports that were held. m.mu is locked.
func (m *managed) open(ctx context.Context) error {
	for _, p := range m.ports {
		if p.hold == nil {
			continue
		}
		h := p.hold
		p.hold = nil
		live, err := m.s.net.PublishHeld(ctx, m.ep, h)
		if err != nil {
			return err
		}
		p.live = live[0]
	}
	return nil
}

// changePorts takes published ports away and adds others while the sandbox runs: all of it or, with an error, nothing.
//
//	added, where no port that goes is in the way ─▶ taken away ─▶ the rest added
//	        └─ error: added ones close                  └─ error: what was taken away is published again
func (m *managed) changePorts(ctx context.Context, remove []config.PortSelector, add []config.Port) (gone, came []launcher.PublishedPort, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ep == nil {
		return nil, nil, m.unreachable()
	}
	stay, leave, err := m.selectPorts(remove)
	if err != nil {
		return nil, nil, err
	}
	inTheWay := func(one config.Port) bool {
		return slices.ContainsFunc(leave, func(p *port) bool { return one.Host != 0 && one.Host == p.at.HostPort })
	}
	var first, second []config.Port
	for _, one := range singles(add) {
		if inTheWay(one) {
			second = append(second, one)
		} else {
			first = append(first, one)
		}
	}
	hold := m.rec.App.Ready != nil && !m.rec.Ready
	added, err := m.publishEach(ctx, first, hold)
	if err != nil {
		return nil, nil, err
	}
	closePorts(leave) // waits for what is under way
	more, err := m.publishEach(ctx, second, hold)
	if err != nil {
		closePorts(added)
		return nil, nil, errors.Join(err, m.restorePorts(ctx, leave, hold))
	}
	m.ports = slices.Concat(stay, added, more)
	for _, p := range leave {
		gone = append(gone, p.at)
	}
	for _, p := range slices.Concat(added, more) {
		came = append(came, p.at)
	}
	return gone, came, m.portsChanged()
}

// selectPorts tells the ports that selectors are about from the others. m.mu is locked.
func (m *managed) selectPorts(which []config.PortSelector) (stay, leave []*port, err error) {
	stay = slices.Clone(m.ports)
	for _, w := range which {
		before := len(leave)
		stay = slices.DeleteFunc(stay, func(p *port) bool {
			if !w.Selects(p.at.HostIP, p.at.HostPort, p.at.AppPort, p.at.Protocol) {
				return false
			}
			leave = append(leave, p)
			return true
		})
		if len(leave) == before {
			return nil, nil, &launcher.Error{Message: fmt.Sprintf("sandbox %q has no published port %q", m.rec.Name, w), Hint: "whisk port " + m.rec.Name, Kind: launcher.KindNotFound, Exit: launcher.ExitWhisk}
		}
	}
	return stay, leave, nil
}

// publishEach publishes single ports, all or, with an error, none. m.mu is locked.
func (m *managed) publishEach(ctx context.Context, wanted []config.Port, hold bool) ([]*port, error) {
	var out []*port
	for _, one := range wanted {
		p, err := m.publish(ctx, m.ep, one, hold)
		if err != nil {
			closePorts(out)
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// restorePorts publishes again, where they were, ports that were closed a moment ago. m.mu is locked.
func (m *managed) restorePorts(ctx context.Context, closed []*port, hold bool) error {
	var errs []error
	for _, p := range closed {
		as := p.asked
		as.Host = p.at.HostPort // also where it was the kernel that picked
		again, err := m.publish(ctx, m.ep, as, hold)
		if err != nil { // somebody else was as quick as that
			errs = append(errs, err)
			m.ports = slices.DeleteFunc(m.ports, func(q *port) bool { return q == p })
			continue
		}
		p.hold, p.live = again.hold, again.live
	}
	if len(errs) > 0 {
		errs = append(errs, m.portsChanged())
	}
	return errors.Join(errs...)
}

// unreachable says why a port cannot be published. m.mu is locked.
func (m *managed) unreachable() error {
	if m.rec.Network == "none" {
		return &launcher.Error{Message: fmt.Sprintf("sandbox %q has no network: none of its ports can be reached", m.rec.Name), Exit: launcher.ExitWhisk}
	}
	return &launcher.Error{Message: fmt.Sprintf("sandbox %q is not running", m.rec.Name), Hint: "whisk start " + m.rec.Name, Kind: launcher.KindNotFound, Exit: launcher.ExitWhisk}
}

// portsChanged writes down what whisk port has changed. m.mu is locked.
func (m *managed) portsChanged() error {
	m.rec.AskedPorts, m.rec.Ports = []config.Port{}, nil
	for _, p := range m.ports {
		m.rec.AskedPorts, m.rec.Ports = append(m.rec.AskedPorts, p.asked), append(m.rec.Ports, p.at)
	}
	return m.rec.Write(m.s.doc.Dirs)
}

// PortsRequest changes the published ports of a running sandbox: all of it or nothing.
type PortsRequest struct {
	Add    []config.Port         `json:"add,omitempty"`
	Remove []config.PortSelector `json:"remove,omitempty"` // before Add
}

func (s *server) handlePorts(r *http.Request, out *reply) error {
	var req PortsRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	m, _, err := s.find(r)
	if err != nil {
		return err
	}
	gone, came, err := m.changePorts(r.Context(), req.Remove, req.Add)
	if err != nil {
		return err
	}
	if len(gone) > 0 {
		out.send(Event{Type: EventUnpublished, ID: m.rec.ID, Ports: gone})
	}
	if len(came) > 0 {
		out.send(Event{Type: EventPublished, ID: m.rec.ID, Ports: came})
	}
	return nil
}

// Ports changes the published ports of a running sandbox, all that is asked for or, with an error, nothing. What has
// changed is told by events.
func (c *Client) Ports(ctx context.Context, id string, r PortsRequest, each func(Event)) error {
	return c.do(ctx, "/v1/ports?id="+id, r, nil, each)
}
