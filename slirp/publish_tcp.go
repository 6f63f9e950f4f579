package slirp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// publishTimeout bounds a connect to an app on this machine. It only runs out if the app's backlog stays full.
	publishTimeout = 30 * time.Second

	// acceptPause is the wait before the next accept when descriptors have run out.
	acceptPause = 10 * time.Millisecond
)

func (p *Published) listenTCP(ctx, life context.Context, at netip.AddrPort) error {
	lc := net.ListenConfig{KeepAlive: -1} // peers are on this machine, or their own keep-alive reaches the host's kernel
	lc.SetMultipathTCP(false)             // splice(2) needs plain TCP
	l, err := lc.Listen(ctx, familyOf("tcp", at.Addr()), at.String())
	if err != nil {
		return err
	}
	t := l.(*net.TCPListener)
	p.listener, p.host = l, t.Addr().(*net.TCPAddr).AddrPort()
	p.wg.Go(func() { p.acceptAll(life, t) })
	return nil
}

func (p *Published) acceptAll(life context.Context, l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			if life.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			p.endpoint.network.log.Warn("published port cannot accept", "port", p.host, "err", err)
			pause(life, acceptPause)
			continue
		}
		p.wg.Go(func() { p.serveTCP(life, c) })
	}
}

// serveTCP joins a client with the app. One whom the app does not answer is reset, which is the nearest that is left to
// a refused connection once the host's kernel has accepted.
func (p *Published) serveTCP(life context.Context, client *net.TCPConn) {
	app, err := p.dialApp(life)
	if err != nil {
		if life.Err() == nil {
			p.endpoint.network.log.Debug("app does not answer on published port", "host", p.host, "app", p.endpoint.name, "port", p.AppPort, "err", err)
		}
		reset(client)
		return
	}
	relay(life, client, app)
}

// dialApp connects to the app. The client's address is lost here: the app sees the gateway's. A socket bound to the
// client's address (IP_TRANSPARENT) is to keep it, and belongs here.
func (p *Published) dialApp(life context.Context) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(life, publishTimeout)
	defer cancel()
	var first error
	for _, to := range p.targets(p.host.Addr().Is6()) {
		c, err := p.endpoint.network.dialAddr(ctx, unix.SOCK_STREAM, to)
		if err == nil {
			return c.(*net.TCPConn), nil
		}
		if first == nil {
			first = err
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			break
		}
	}
	return nil, first
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
