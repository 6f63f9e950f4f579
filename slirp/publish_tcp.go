package slirp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// publishTimeout bounds a connect to an app on this machine. It only runs out if the app's backlog stays full.
	publishTimeout = 30 * time.Second

	// acceptPause is the wait before the next accept when descriptors have run out, and when one may be free.
	acceptPause = 20 * time.Millisecond

	// acceptBurst bounds what one loop accepts at once: the others get some too.
	acceptBurst = 8
)

// tcpForward is one published TCP port: a listening socket of the host's, shared by all loops.
type tcpForward struct {
	*Published
	fd    int
	loops []*loop
}

func (p *Published) listenTCP(ctx context.Context, at netip.AddrPort) error {
	n := p.endpoint.network
	if err := n.loops.start(); err != nil {
		return err
	}
	lc := net.ListenConfig{KeepAlive: -1} // see detachListener
	lc.SetMultipathTCP(false)             // splice(2) needs plain TCP
	l, err := lc.Listen(ctx, familyOf("tcp", at.Addr()), at.String())
	if err != nil {
		return err
	}
	p.host = l.Addr().(*net.TCPAddr).AddrPort()
	fd, err := detachListener(l.(*net.TCPListener))
	if err != nil {
		return err
	}
	if !p.host.Addr().IsLoopback() {
		go func() { _ = n.transparent.start() }() // the first client is not to wait for it; it says the error
	}
	f := &tcpForward{Published: p, fd: fd}
	p.listener = f
	for _, l := range n.loops.all {
		t := &taker{f, l}
		if l.post(t.watch) {
			f.loops = append(f.loops, l)
		}
	}
	return nil
}

// detachListener takes a listening socket away from Go's poller. What it accepts inherits TCP_NODELAY, since the app has
// decided already which small messages wait for each other (RFC 896), and keep-alive at the host's intervals (tcp(7)):
// the app's own probes end here and say nothing about the client.
func detachListener(l *net.TCPListener) (fd int, err error) {
	defer l.Close()
	raw, err := l.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := raw.Control(func(old uintptr) {
		if fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1))
		}
	})
	if err = errors.Join(err, cerr); err != nil && fd > 0 {
		unix.Close(fd)
	}
	return fd, err
}

// Close stops listening and resets what was forwarded.
func (f *tcpForward) Close() error {
	for _, l := range f.loops {
		done := make(chan struct{})
		if !l.post(func() { f.leave(l); close(done) }) {
			continue // it has ended, and with it all pairs
		}
		select {
		case <-done:
		case <-l.done:
		}
	}
	return unix.Close(f.fd)
}

// leave ends what one loop does for the port.
func (f *tcpForward) leave(l *loop) {
	l.unwatch(f.fd)
	for t := range l.resting {
		if t.port == f {
			delete(l.resting, t)
		}
	}
	for d := range l.dials {
		if d.port == f {
			d.fail()
		}
	}
	for p := range l.pairs {
		if p.owner == f {
			p.abort()
		}
	}
}

// taker accepts clients of one port in one loop.
type taker struct {
	port *tcpForward
	loop *loop
}

func (t *taker) watch() { _ = t.loop.watch(t.port.fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, t, 0) } // fails without memory only

func (t *taker) take(int, uint32) {
	for range acceptBurst {
		fd, sa, err := unix.Accept4(t.port.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			d := &appDial{loop: t.loop, port: t.port, client: fd, from: addrPortOf(sa), fd: -1}
			t.loop.dials[d] = struct{}{}
			d.next()
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
			t.port.endpoint.network.log.Warn("published port cannot accept", "port", t.port.host, "err", err)
			t.loop.rest(t)
			return
		default:
			return
		}
	}
}

func addrPortOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			a = a.WithZone(fmt.Sprint(sa.ZoneId))
		}
		return netip.AddrPortFrom(a, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// appDial connects a client of a published port to the app. It tries the ways of appTargets one after the other; a client
// whom the app does not answer is reset, which is the nearest that is left to a refused connection once the host's kernel
// has accepted.
//
//	accepted ─▶ connecting ─┬─▶ joined, as a pair
//	              ▲  refused│
//	              └─────────┴─▶ reset, after the last way
type appDial struct {
	loop   *loop
	port   *tcpForward
	client int
	from   netip.AddrPort
	ways   []appTarget
	fd     int // connecting; -1: none
	expiry time.Time
}

// next begins with the next way.
func (d *appDial) next() {
	e := d.port.endpoint
	if d.ways == nil {
		d.ways = e.targets(d.from, d.port.host.Addr().Is6(), d.port.AppPort)
		d.expiry = time.Now().Add(publishTimeout)
	}
	for len(d.ways) > 0 {
		way := d.ways[0]
		d.ways = d.ways[1:]
		fd, err := e.openSocket(d.loop.in, unix.SOCK_STREAM, e.network.seen(way))
		if err != nil {
			continue
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		if err := unix.Connect(fd, sockaddrOf(way.to)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			unix.Close(fd)
			continue
		}
		sharePort(fd)
		if d.loop.watch(fd, pairEvents, d, 0) != nil {
			unix.Close(fd)
			break
		}
		d.fd = fd
		return
	}
	e.network.log.Debug("app does not answer on published port", "host", d.port.host, "app", e.name, "port", d.port.AppPort)
	d.fail()
}

// take learns how the connect went.
func (d *appDial) take(_ int, events uint32) {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		if code, err := unix.GetsockoptInt(d.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			d.loop.forget(d.fd)
			unix.Close(d.fd)
			d.fd = -1
			d.next()
			return
		}
	}
	if events&unix.EPOLLOUT == 0 {
		return
	}
	delete(d.loop.dials, d)
	p := &pair{loop: d.loop, owner: d.port, fd: [2]int{d.client, d.fd}}
	p.adopt(1, events)
}

// fail resets the client.
func (d *appDial) fail() {
	delete(d.loop.dials, d)
	if d.fd >= 0 {
		d.loop.forget(d.fd)
		unix.Close(d.fd)
	}
	resetFD(d.client)
}

// rest has a port not watched for a while: the clients that it cannot accept would be an event again at once, and without end.
func (l *loop) rest(t *taker) {
	l.unwatch(t.port.fd)
	l.resting[t] = time.Now().Add(acceptPause)
}

// overdue ends the dials that have taken too long, and the rest of ports that have had it.
func (l *loop) overdue(now time.Time) {
	for t, until := range l.resting {
		if !now.Before(until) {
			delete(l.resting, t)
			t.watch()
		}
	}
	for d := range l.dials {
		if now.After(d.expiry) {
			d.fail()
		}
	}
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
