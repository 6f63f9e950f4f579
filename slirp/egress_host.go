package slirp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hostPort forwards one port of the gateway's addresses, host.whisk.internal, to the same port of the host's loopback, for
// the sandboxes that may use it. Others are reset, and UDP of theirs is answered
// "administratively prohibited".
//
//	sandbox ─▶ router: gateway:PORT ─▶ host: 127.0.0.1:PORT, else [::1]:PORT
type hostPort struct {
	network *Network
	port    uint16
	ctx     context.Context
	cancel  context.CancelFunc
	tcp     []*net.TCPListener
	udp     []*hostUDP
	wg      sync.WaitGroup

	mu    sync.Mutex
	users map[*Endpoint]context.Context // each ends when its sandbox leaves
}

// noHostPort is why a port that another sandbox may use is denied.
const noHostPort = "this sandbox has no such host port"

// hostUDP is a gateway's socket for UDP.
type hostUDP struct {
	*hostPort
	raw     int // of the conn's family, for what is not answered by it
	conn    *net.UDPConn
	apps    *sessions[netip.AddrPort]
	buffers datagrams
}

// openHostPorts lets a sandbox use ports of the host's loopback, all of them or, with an error, none.
func (n *Network) openHostPorts(e *Endpoint, ports []uint16) error {
	if len(ports) == 0 {
		return nil
	}
	var life context.Context
	life, e.leaveHost = context.WithCancel(n.ctx)
	n.hostMu.Lock()
	defer n.hostMu.Unlock()
	for _, port := range ports {
		h := n.hostPorts[port]
		if h == nil {
			var err error
			if h, err = n.listenHostPort(port); err != nil {
				n.leaveHostPortsLocked(e)
				return fmt.Errorf("opening host port %d: %w", port, err)
			}
			if n.hostPorts == nil {
				n.hostPorts = make(map[uint16]*hostPort)
			}
			n.hostPorts[port] = h
		}
		h.mu.Lock()
		h.users[e] = life
		h.mu.Unlock()
	}
	return nil
}

// leaveHostPorts ends a sandbox's use of the host's ports, and the ports that nobody else uses.
func (n *Network) leaveHostPorts(e *Endpoint) {
	n.hostMu.Lock()
	defer n.hostMu.Unlock()
	n.leaveHostPortsLocked(e)
}

func (n *Network) leaveHostPortsLocked(e *Endpoint) {
	if e.leaveHost == nil {
		return
	}
	e.leaveHost()
	for port, h := range n.hostPorts {
		h.mu.Lock()
		delete(h.users, e)
		unused := len(h.users) == 0
		h.mu.Unlock()
		for _, u := range h.udp {
			u.apps.endWhere(func(from netip.AddrPort) bool { return from.Addr() == e.v4 || from.Addr() == e.v6 }, "")
		}
		if unused {
			delete(n.hostPorts, port)
			h.close()
		}
	}
}

// listenHostPort listens on the gateway's addresses.
func (n *Network) listenHostPort(port uint16) (*hostPort, error) {
	h := &hostPort{network: n, port: port, users: make(map[*Endpoint]context.Context)}
	h.ctx, h.cancel = context.WithCancel(n.ctx)
	err := n.thread.do(func() error {
		for _, gw := range n.dns.gateway {
			at := net.JoinHostPort(gw.String(), strconv.Itoa(int(port)))
			// The other end is on this machine. The number may be that of a port that the router speaks from (sharePort).
			lc := net.ListenConfig{KeepAlive: -1, Control: shareHostPort}
			lc.SetMultipathTCP(false)
			l, err := lc.Listen(h.ctx, "tcp", at)
			if err != nil {
				return err
			}
			h.tcp = append(h.tcp, l.(*net.TCPListener))
			c, err := lc.ListenPacket(h.ctx, "udp", at)
			if err != nil {
				return err
			}
			raw, err := rawSocket(gw)
			if err != nil {
				c.Close()
				return err
			}
			h.udp = append(h.udp, &hostUDP{hostPort: h, raw: raw, conn: c.(*net.UDPConn), apps: newSessions(maxClients, maxClients/4, netip.AddrPort.Addr)})
		}
		return nil
	})
	if err != nil {
		h.close()
		return nil, err
	}
	for _, l := range h.tcp {
		h.wg.Go(func() { h.accept(l) })
	}
	for _, u := range h.udp {
		h.wg.Go(u.run)
	}
	return h, nil
}

func shareHostPort(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { sharePort(int(fd)) })
}

func (h *hostPort) close() {
	h.cancel()
	for _, l := range h.tcp {
		l.Close()
	}
	for _, u := range h.udp {
		u.conn.Close()
		u.apps.close()
	}
	h.wg.Wait()
	for _, u := range h.udp {
		unix.Close(u.raw)
	}
}

// user is the life of a sandbox that may use the port; nil if the address is not one of such a sandbox's.
func (h *hostPort) user(from netip.Addr) context.Context {
	e := h.network.names.endpoint(from.Unmap())
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.users[e]
}

func (h *hostPort) accept(l *net.TCPListener) {
	for {
		app, err := l.AcceptTCP()
		if err != nil {
			if h.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			h.network.log.Warn("host port cannot accept", "port", h.port, "err", err)
			pause(h.ctx, acceptPause)
			continue
		}
		h.wg.Go(func() { h.serve(app) })
	}
}

func (h *hostPort) serve(app *net.TCPConn) {
	from := app.RemoteAddr().(*net.TCPAddr).AddrPort()
	life := h.user(from.Addr())
	f := flow{protoTCP, unmapped(from), unmapped(app.LocalAddr().(*net.TCPAddr).AddrPort())}
	if life == nil {
		h.network.flowlog.denied(f, noHostPort)
		h.network.log.Debug("egress denied", "protocol", "tcp", "from", from, "name", hostName, "why", noHostPort, "port", h.port)
		reset(app)
		return
	}
	log := h.network.flowlog.begin(f)
	defer log.end()
	d := net.Dialer{Timeout: publishTimeout, KeepAlive: -1}
	c, err := d.DialContext(life, "tcp", h.target(netip.AddrFrom4([4]byte{127, 0, 0, 1})))
	if errors.Is(err, unix.ECONNREFUSED) {
		c, err = d.DialContext(life, "tcp", h.target(netip.IPv6Loopback()))
	}
	if err != nil {
		h.network.log.Debug("host port does not answer", "port", h.port, "err", err)
		log.fail(err)
		reset(app)
		return
	}
	log.count(relay(life, app, c.(*net.TCPConn)))
}

func (h *hostPort) target(a netip.Addr) string { return netip.AddrPortFrom(a, h.port).String() }

// unmapped writes an IPv4 address in IPv6's clothes as what it is.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func (u *hostUDP) run() {
	b := u.buffers.get()
	for {
		n, from, err := u.conn.ReadFromUDPAddrPort(b[:])
		if err != nil {
			if u.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an answer that an app did not take
		}
		u.forward(unmapped(from), b[:n])
	}
}

func (u *hostUDP) forward(from netip.AddrPort, b []byte) {
	s := u.apps.get(from)
	if s == nil {
		f := flow{protoUDP, from, unmapped(u.conn.LocalAddr().(*net.UDPAddr).AddrPort())}
		if u.user(from.Addr()) == nil {
			u.network.flowlog.denied(f, noHostPort)
			u.network.log.Debug("egress denied", "protocol", "udp", "from", from, "name", hostName, "why", noHostPort, "port", u.port)
			u.prohibit(f)
			return
		}
		c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(u.port)}) // does not wait
		if err != nil {
			return
		}
		s = newSession(c)
		s.log = u.network.flowlog.begin(f)
		if !u.apps.put(from, s) {
			return
		}
		u.wg.Go(func() { u.receive(from, s) })
	}
	s.touch()
	n, err := s.conn.Write(b)
	s.log.count(int64(n), 0)
	if err != nil {
		s.log.fail(err)
		u.network.log.Debug("datagram for host port not delivered", "port", u.port, "err", err)
	}
}

// prohibit answers a sandbox's datagram as the gate does, from the address that it was sent to. The datagram is gone; its
// headers are enough for the app's kernel to find the socket.
func (u *hostUDP) prohibit(f flow) {
	if !u.network.names.has(f.src.Addr()) {
		return
	}
	p, err := parsePacket(udpPacket(f.src, f.dst, nil))
	if err == nil {
		err = sendFrom(u.raw, unreachablePacket(p, prohibited), f.src.Addr())
	}
	if err != nil {
		u.network.log.Debug("datagram for host port not answered", "port", u.port, "err", err)
	}
}

// rawSocket sends whole packets, ip(7) and ipv6(7), from the calling thread's namespace.
func rawSocket(a netip.Addr) (int, error) {
	family := unix.AF_INET6
	if a.Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return -1, fmt.Errorf("opening a raw socket: %w", err)
	}
	return fd, nil
}

func sendFrom(fd int, ip []byte, to netip.Addr) error {
	if to.Is4() {
		return unix.Sendto(fd, ip, 0, &unix.SockaddrInet4{Addr: to.As4()})
	}
	return unix.Sendto(fd, ip, 0, &unix.SockaddrInet6{Addr: to.As16()})
}

// receive carries the host's answers to an app.
func (u *hostUDP) receive(from netip.AddrPort, s *session) {
	defer s.log.end()
	defer u.apps.end(from, s)
	u.buffers.receive(s.conn, func() time.Time { return s.expiry(udpUnreplied, udpReplied) }, func(b []byte) {
		s.touch()
		s.replied.Store(true)
		s.log.count(0, int64(len(b)))
		_, _ = u.conn.WriteToUDPAddrPort(b, from) // an app that has gone is found out by the next read
	}, func(err error) bool {
		s.log.fail(err)
		return true
	})
}
