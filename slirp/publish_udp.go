package slirp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxClients bounds descriptors: each client of a published UDP port has a socket in the router namespace.
const maxClients = 1024

const (
	// maxUntried bounds what is kept of datagrams to be sent again by another way, in bytes. Refusals come at once, so few
	// wait for one.
	maxUntried = 1 << 20

	// lookAgain is for how long new clients take the way by which the app has answered, though there are better ones.
	lookAgain = time.Second
)

// udpClient is who sent to a published port, and to which of the host's addresses: the answer must come from there.
type udpClient struct {
	addr netip.AddrPort
	// local is the control message that names the host's address, as the kernel gave it (IP_PKTINFO).
	local [unix.SizeofInet6Pktinfo + unix.SizeofCmsghdr + 8]byte
	size  int // of local
}

// udpForward forwards one published UDP port, a session for each client.
type udpForward struct {
	*Published
	life    context.Context
	conn    *net.UDPConn
	clients *sessions[udpClient]
	buffers datagrams

	mu      sync.Mutex
	retry   map[*session]untried // of sessions that have sent one datagram and had no answer
	held    int                  // bytes in retry
	answers int                  // the place of the way by which the app has answered last
	look    time.Time            // when the ways before that are to be tried again
}

func (p *Published) listenUDP(ctx, life context.Context, at netip.AddrPort) error {
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(ctx, familyOf("udp", at.Addr()), at.String())
	if err != nil {
		return err
	}
	c := pc.(*net.UDPConn)
	if at.Addr().IsUnspecified() {
		if err := packetInfo(c, at.Addr().Is6()); err != nil {
			c.Close()
			return err
		}
	}
	if !at.Addr().IsLoopback() {
		go func() { _ = p.endpoint.network.transparent.start() }() // the first client is not to wait for it
	}
	f := &udpForward{Published: p, life: life, conn: c, clients: newSessions(maxClients, maxClients, func(c udpClient) netip.Addr { return c.addr.Addr() }), retry: make(map[*session]untried)}
	p.listener, p.host = c, c.LocalAddr().(*net.UDPAddr).AddrPort()
	p.wg.Go(f.run)
	return nil
}

// packetInfo has the kernel say which address each datagram was sent to.
func packetInfo(c *net.UDPConn, six bool) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		if six {
			serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		} else {
			serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}
	})
	if err := errors.Join(err, serr); err != nil {
		return fmt.Errorf("asking for the addresses of datagrams: %w", err)
	}
	return nil
}

func (f *udpForward) run() {
	defer f.clients.close()
	b := f.buffers.get()
	for {
		var from udpClient
		n, size, _, addr, err := f.conn.ReadMsgUDPAddrPort(b[:], from.local[:])
		if err != nil {
			if f.life.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an answer that a client did not take
		}
		from.addr, from.size = addr, size
		f.forward(from, b[:n])
	}
}

func (f *udpForward) forward(from udpClient, b []byte) {
	s := f.clients.get(from)
	if s == nil {
		f.open(from, b, f.ways(from, time.Now()))
		return
	}
	s.touch()
	_, err := s.conn.Write(b)
	u := f.settle(s) // what came before has arrived, if this one has been sent
	switch {
	case err == nil || f.life.Err() != nil:
	case errors.Is(err, unix.ECONNREFUSED) && !s.replied.Load() && len(u.ways) > 0: // what came before was, and this one not sent
		f.clients.end(from, s)
		if f.open(from, u.first, u.ways) {
			f.forward(from, b)
		}
	default:
		f.endpoint.network.log.Debug("datagram for published port not delivered", "port", f.host, "err", err)
	}
}

// appWay is one way to the app, and its place among all.
type appWay struct {
	appTarget
	place int
}

// ways are the ways to the app for a new client. An app that answers only by a later one is not looked for by the first
// ones each time: the kernel says "refused" a few times a second only (icmp(7), icmp_ratelimit).
func (f *udpForward) ways(from udpClient, now time.Time) []appWay {
	var out []appWay
	for i, t := range f.endpoint.targets(from.addr, f.host.Addr().Is6(), f.AppPort) {
		out = append(out, appWay{t, i})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.answers > 0 && now.Before(f.look) {
		return slices.Concat(out[f.answers:], out[:f.answers])
	}
	f.look = now.Add(lookAgain)
	return out
}

// untried is what a session needs whose only datagram so far may have found nobody listening: that datagram, and the other
// ways to the app.
type untried struct {
	first []byte
	ways  []appWay
}

// open makes a client's session, and sends the first datagram by the first of the ways that does not refuse it at once, as
// the kernel does for what is on this machine unless it is very busy. It reports false if there is no session.
func (f *udpForward) open(from udpClient, first []byte, ways []appWay) bool {
	for len(ways) > 0 {
		way := ways[0]
		ways = ways[1:]
		c, err := f.endpoint.dialApp(way.appTarget)
		if err != nil {
			f.endpoint.network.log.Debug("published port cannot reach its app", "port", f.host, "err", err)
			continue
		}
		_, err = c.Write(first)
		if err == nil {
			err = socketError(c)
		}
		if errors.Is(err, unix.ECONNREFUSED) {
			c.Close()
			continue
		}
		s := newSession(c)
		if !f.clients.put(from, s) {
			return false
		}
		f.mu.Lock()
		if f.held+len(first) <= maxUntried {
			f.held += len(first)
			f.retry[s] = untried{bytes.Clone(first), ways}
		}
		f.mu.Unlock()
		f.wg.Go(func() { f.receive(from, s, way.place) })
		return true
	}
	f.mu.Lock()
	f.answers = 0
	f.mu.Unlock()
	return false
}

// receive carries the app's answers to a client.
func (f *udpForward) receive(from udpClient, s *session, place int) {
	var refused bool
	f.buffers.receive(s.conn, func() time.Time { return s.expiry(udpUnreplied, udpReplied) }, func(b []byte) {
		s.touch()
		if s.replied.CompareAndSwap(false, true) {
			f.settle(s)
			f.mu.Lock()
			f.answers = place
			f.mu.Unlock()
		}
		// A client that has gone is found out by the next read of the shared socket.
		_, _, _ = f.conn.WriteMsgUDPAddrPort(b, from.local[:from.size], from.addr)
	}, func(err error) bool {
		refused = !s.replied.Load() && errors.Is(err, unix.ECONNREFUSED)
		return !refused
	})
	u := f.settle(s)
	f.clients.end(from, s)
	if refused && len(u.ways) > 0 && f.life.Err() == nil {
		f.open(from, u.first, u.ways)
	}
}

// settle drops and returns what is left to try.
func (f *udpForward) settle(s *session) untried {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.retry[s]
	delete(f.retry, s)
	f.held -= len(u.first)
	return u
}

// socketError takes a socket's error, if it has one.
func socketError(c socket) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		var code int
		if code, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code != 0 {
			err = unix.Errno(code)
		}
	})
	return errors.Join(err, cerr)
}

// dialApp connects a datagram socket to an app. It does not wait.
func (e *Endpoint) dialApp(to appTarget) (socket, error) {
	n := e.network
	to = n.seen(to)
	fd := -1
	err := n.thread.do(func() (err error) {
		fd, err = e.openSocket(n.thread.in, unix.SOCK_DGRAM, to)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, sockaddrOf(to.to)); err != nil {
		unix.Close(fd)
		return nil, err
	}
	sharePort(fd)
	return connFromFD(fd, "datagram")
}
