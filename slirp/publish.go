package slirp

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/whisk-sandbox/whisk/config"
)

// Published is one host port that is forwarded to a sandbox.
type Published struct {
	// AppPort is the port in the sandbox, Protocol "tcp" or "udp".
	AppPort  uint16
	Protocol string

	endpoint *Endpoint
	host     netip.AddrPort
	cancel   context.CancelFunc
	listener interface{ Close() error }
	wg       sync.WaitGroup
	once     sync.Once
}

// HostAddr is where the host listens, with the port that the kernel picked where 0 was asked for.
func (p *Published) HostAddr() netip.AddrPort { return p.host }

// Close stops listening and ends what was forwarded.
func (p *Published) Close() error {
	var err error
	p.once.Do(func() {
		p.cancel()
		err = p.listener.Close()
		p.wg.Wait()
	})
	return err
}

// Publish forwards host ports to a sandbox, all of the range or, with an error, none. The host listens when it returns;
// a client that comes before the app does is reset. An error about a port is a *PortError.
func (n *Network) Publish(ctx context.Context, e *Endpoint, p config.Port) ([]*Published, error) {
	ports, err := portPlan(p)
	if err != nil {
		return nil, err
	}
	var out []*Published
	for _, one := range ports {
		q, err := n.publish(ctx, e, one)
		if err != nil {
			for _, q := range out {
				q.Close()
			}
			return nil, err
		}
		out = append(out, q)
	}
	e.mu.Lock()
	gone := e.closed
	if !gone {
		e.published = append(e.published, out...)
	}
	e.mu.Unlock()
	if gone {
		for _, q := range out {
			q.Close()
		}
		return nil, fmt.Errorf("publishing %s: %w", ports[0].host, errThreadGone)
	}
	return out, nil
}

// portForward is one port of a range.
type portForward struct {
	host     netip.AddrPort
	app      uint16
	protocol string
}

// portPlan spreads a range out.
func portPlan(p config.Port) ([]portForward, error) {
	ip := p.HostIP
	if !ip.IsValid() {
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	count := max(int(p.Count), 1)
	protocol := p.Protocol
	if protocol == "" {
		protocol = "tcp"
	}
	if protocol != "tcp" && protocol != "udp" {
		return nil, fmt.Errorf("publishing port %d: protocol %q is neither tcp nor udp", p.App, p.Protocol)
	}
	if p.App == 0 || int(p.App)+count-1 > 65535 || p.Host != 0 && int(p.Host)+count-1 > 65535 {
		return nil, fmt.Errorf("publishing ports %d:%d: a range of %d leaves 1-65535", p.Host, p.App, count)
	}
	var out []portForward
	for i := range uint16(count) {
		host := p.Host
		if host != 0 {
			host += i
		}
		out = append(out, portForward{netip.AddrPortFrom(ip.Unmap(), host), p.App + i, protocol})
	}
	return out, nil
}

func (n *Network) publish(ctx context.Context, e *Endpoint, f portForward) (*Published, error) {
	p := &Published{AppPort: f.app, Protocol: f.protocol, endpoint: e}
	life, cancel := context.WithCancel(n.ctx)
	p.cancel = cancel
	var err error
	if f.protocol == "udp" {
		err = p.listenUDP(ctx, life, f.host)
	} else {
		err = p.listenTCP(ctx, f.host)
	}
	if err != nil {
		cancel()
		return nil, newPortError(f.host, f.app, f.protocol, err)
	}
	return p, nil
}

// network is the name of the protocol over the family of the address: package net takes "tcp" on [::] for both.
func familyOf(protocol string, a netip.Addr) string {
	if a.Is4() {
		return protocol + "4"
	}
	return protocol + "6"
}
