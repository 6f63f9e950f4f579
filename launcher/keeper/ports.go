package keeper

import (
	"context"
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

// addPorts publishes more while the sandbox runs, all or, with an error, none.
func (m *managed) addPorts(ctx context.Context, wanted config.Port) ([]launcher.PublishedPort, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ep == nil {
		return nil, m.unreachable()
	}
	var added []*port
	var out []launcher.PublishedPort
	for _, one := range singles([]config.Port{wanted}) {
		p, err := m.publish(ctx, m.ep, one, m.rec.App.Ready != nil && !m.rec.Ready)
		if err != nil {
			closePorts(added)
			return nil, err
		}
		added, out = append(added, p), append(out, p.at)
	}
	m.ports = append(m.ports, added...)
	return out, m.portsChanged()
}

// unreachable says why a port cannot be published. m.mu is locked.
func (m *managed) unreachable() error {
	if m.rec.Network == "none" {
		return &launcher.Error{Message: fmt.Sprintf("sandbox %q has no network: none of its ports can be reached", m.rec.Name), Exit: launcher.ExitWhisk}
	}
	return &launcher.Error{Message: fmt.Sprintf("sandbox %q is not running", m.rec.Name), Hint: "whisk start " + m.rec.Name, Kind: launcher.KindNotFound, Exit: launcher.ExitWhisk}
}

// removePorts ends the forwarding of published ports.
func (m *managed) removePorts(which config.PortSelector) ([]launcher.PublishedPort, error) {
	m.mu.Lock()
	if m.ep == nil {
		defer m.mu.Unlock()
		return nil, m.unreachable()
	}
	var gone []*port
	var out []launcher.PublishedPort
	m.ports = slices.DeleteFunc(m.ports, func(p *port) bool {
		if !which.Selects(p.at.HostIP, p.at.HostPort, p.at.AppPort, p.at.Protocol) {
			return false
		}
		gone, out = append(gone, p), append(out, p.at)
		return true
	})
	var err error
	if len(gone) > 0 {
		err = m.portsChanged()
	}
	name := m.rec.Name
	m.mu.Unlock()
	closePorts(gone) // waits for what is under way
	if len(gone) == 0 {
		return nil, &launcher.Error{Message: fmt.Sprintf("sandbox %q has no published port %q", name, which), Hint: "whisk port " + name, Kind: launcher.KindNotFound, Exit: launcher.ExitWhisk}
	}
	return out, err
}

// portsChanged writes down what whisk port has changed. m.mu is locked.
func (m *managed) portsChanged() error {
	m.rec.AskedPorts, m.rec.Ports = []config.Port{}, nil
	for _, p := range m.ports {
		m.rec.AskedPorts, m.rec.Ports = append(m.rec.AskedPorts, p.asked), append(m.rec.Ports, p.at)
	}
	return m.rec.Write(m.s.doc.Dirs)
}

// PortsRequest changes the published ports of a running sandbox.
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
	for _, which := range req.Remove {
		gone, err := m.removePorts(which)
		if err != nil {
			return err
		}
		out.send(Event{Type: EventUnpublished, ID: m.rec.ID, Ports: gone})
	}
	for _, wanted := range req.Add {
		ports, err := m.addPorts(r.Context(), wanted)
		if err != nil {
			return err
		}
		out.send(Event{Type: EventPublished, ID: m.rec.ID, Ports: ports})
	}
	return nil
}

// Ports changes the published ports of a running sandbox. Each change is told by an event; at the first that fails, the
// rest is left undone.
func (c *Client) Ports(ctx context.Context, id string, r PortsRequest, each func(Event)) error {
	return c.do(ctx, "/v1/ports?id="+id, r, nil, each)
}
