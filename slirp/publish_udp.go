package slirp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxClients bounds descriptors: each client of a published UDP port has a socket in the router namespace.
const maxClients = 1024

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

	mu    sync.Mutex
	retry map[*session]untried // of sessions that were not answered yet
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
		e := f.endpoint
		if s = f.open(from, b, e.targets(from.addr, f.host.Addr().Is6(), f.AppPort)); s == nil {
			return
		}
	}
	s.touch()
	if _, err := s.conn.Write(b); err != nil && f.life.Err() == nil {
		f.endpoint.network.log.Debug("datagram for published port not delivered", "port", f.host, "err", err)
	}
}

// untried is what a session needs that may find nobody listening: its first datagram, and the other ways to the app.
type untried struct {
	first []byte
	ways  []appTarget
}

// open makes a client's session by the first of the ways.
func (f *udpForward) open(from udpClient, first []byte, ways []appTarget) *session {
	c, err := f.endpoint.dialApp(ways[0])
	if err != nil {
		f.endpoint.network.log.Debug("published port cannot reach its app", "port", f.host, "err", err)
		return nil
	}
	s := newSession(c)
	if !f.clients.put(from, s) {
		return nil
	}
	f.mu.Lock()
	f.retry[s] = untried{append([]byte(nil), first...), ways[1:]}
	f.mu.Unlock()
	f.wg.Go(func() { f.receive(from, s) })
	return s
}

// receive carries the app's answers to a client.
func (f *udpForward) receive(from udpClient, s *session) {
	defer f.settle(s)
	f.buffers.receive(s.conn, func() time.Time { return s.expiry(udpUnreplied, udpReplied) }, func(b []byte) {
		s.touch()
		if s.replied.CompareAndSwap(false, true) {
			f.settle(s)
		}
		// A client that has gone is found out by the next read of the shared socket.
		_, _, _ = f.conn.WriteMsgUDPAddrPort(b, from.local[:from.size], from.addr)
	}, func(err error) bool {
		return s.replied.Load() || !errors.Is(err, unix.ECONNREFUSED)
	})
	u := f.settle(s)
	f.clients.end(from, s)
	// Nobody listens there: the next way gets the datagram.
	if len(u.ways) > 0 && time.Now().Before(s.expiry(udpUnreplied, udpReplied)) && f.life.Err() == nil {
		if t := f.open(from, u.first, u.ways); t != nil {
			_, _ = t.conn.Write(u.first) // as lost as any datagram if it fails
		}
	}
}

// settle drops and returns what is left to try.
func (f *udpForward) settle(s *session) untried {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.retry[s]
	delete(f.retry, s)
	return u
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
	return connFromFD(fd, "datagram")
}
