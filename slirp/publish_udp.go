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
	retry map[*session][]byte // the first datagram of sessions that were not answered yet, for the other family
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
	f := &udpForward{Published: p, life: life, conn: c, clients: newSessions[udpClient](maxClients), retry: make(map[*session][]byte)}
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
		if s = f.open(from, f.targets(f.host.Addr().Is6())[0]); s == nil {
			return
		}
		f.remember(s, b)
	}
	s.touch()
	if _, err := s.conn.Write(b); err != nil && f.life.Err() == nil {
		f.endpoint.network.log.Debug("datagram for published port not delivered", "port", f.host, "err", err)
	}
}

func (f *udpForward) open(from udpClient, to netip.AddrPort) *session {
	c, err := f.endpoint.network.dialAddr(f.life, unix.SOCK_DGRAM, to)
	if err != nil {
		return nil
	}
	s := newSession(c)
	if !f.clients.put(from, s) {
		return nil
	}
	f.wg.Go(func() { f.receive(from, s, to) })
	return s
}

// receive carries the app's answers to a client.
func (f *udpForward) receive(from udpClient, s *session, to netip.AddrPort) {
	defer f.forget(s)
	f.buffers.receive(s.conn, func() time.Time { return s.expiry(udpUnreplied, udpReplied) }, func(b []byte) {
		s.touch()
		if s.replied.CompareAndSwap(false, true) {
			f.forget(s)
		}
		// A client that has gone is found out by the next read of the shared socket.
		_, _, _ = f.conn.WriteMsgUDPAddrPort(b, from.local[:from.size], from.addr)
	}, func(err error) bool {
		return s.replied.Load() || !errors.Is(err, unix.ECONNREFUSED)
	})
	first := f.forget(s)
	f.clients.end(from, s)
	// Nobody listens on the preferred family: the other one gets the datagram.
	if other := f.targets(f.host.Addr().Is6())[1]; first != nil && to != other && time.Now().Before(s.expiry(udpUnreplied, udpReplied)) && f.life.Err() == nil {
		if t := f.open(from, other); t != nil {
			_, _ = t.conn.Write(first) // as lost as any datagram if it fails
		}
	}
}

func (f *udpForward) remember(s *session, b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retry[s] = append([]byte(nil), b...)
}

// forget drops and returns what remember kept.
func (f *udpForward) forget(s *session) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.retry[s]
	delete(f.retry, s)
	return b
}
