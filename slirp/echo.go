package slirp

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/whisk-sandbox/whisk/mend"
)

const (
	// echoIdle is longer than ping waits for a reply by default (10 s at most), and shorter than its patience between runs.
	echoIdle = 20 * time.Second

	// maxEchoFlows bounds descriptors: each running ping has a socket of the host's.
	maxEchoFlows = 256

	// maxEchoSource is one sandbox's share.
	maxEchoSource = 64
)

// echoFlows are the pings that leave the network, one unprivileged ping socket of the host (icmp(7)) for each identifier
// and destination. Where the host forbids those, the app is told so: a reply that nobody sent would be a lie.
type echoFlows struct {
	gate    *gate
	buffers datagrams
	flows   *sessions[flow]
	forbids sync.Once
}

func (e *echoFlows) init(g *gate) {
	e.gate = g
	e.flows = newSessions(maxEchoFlows, maxEchoSource, flow.source)
}

func (e *echoFlows) request(p packet) {
	s := e.flows.get(p.flow)
	if s == nil {
		v, ok := e.gate.admit(p)
		if !ok {
			return
		}
		log := e.gate.flowlog.begin(p.flow)
		c, err := dialPing(p.dst.Addr())
		if err != nil {
			e.refuse(p, err)
			log.fail(err)
			log.end()
			return
		}
		if !v.host && ownAddress(c, p.dst.Addr()) {
			c.Close()
			e.gate.answer(unreachablePacket(p, prohibited))
			log.deny(becameHost)
			log.end()
			return
		}
		s = newSession(c)
		s.log = log
		if !e.flows.put(p.flow, s) {
			return
		}
		f := p.flow
		e.gate.wg.Go(func() { e.receive(f, s) })
	}
	s.touch()
	// The kernel puts an identifier of its own and the checksum in.
	n, err := s.conn.Write(p.transport)
	if err != nil {
		e.refuse(p, err)
		s.log.fail(err)
	}
	s.log.count(int64(max(0, n-header.ICMPv4MinimumSize)), 0)
}

func (e *echoFlows) receive(f flow, s *session) {
	defer s.log.end()
	defer e.flows.end(f, s)
	e.buffers.receive(s.conn, func() time.Time { return s.expiry(echoIdle, echoIdle) }, func(b []byte) {
		if len(b) < header.ICMPv4MinimumSize {
			return
		}
		s.touch()
		s.log.count(0, int64(len(b)-header.ICMPv4MinimumSize))
		e.gate.answer(echoReply(f, b[6:]))
	}, func(err error) bool {
		s.log.fail(err)
		ip, t := ipPacket(f.proto, f.src.Addr(), f.dst.Addr(), header.ICMPv4MinimumSize)
		t[0] = uint8(header.ICMPv4Echo)
		if f.proto == protoICMPv6 {
			t[0] = uint8(header.ICMPv6EchoRequest)
		}
		t[4], t[5] = uint8(f.src.Port()>>8), uint8(f.src.Port())
		if p, perr := parsePacket(ip); perr == nil {
			e.refuse(p, err)
		}
		return true
	})
}

func (e *echoFlows) refuse(p packet, err error) {
	why, ok := unreachableBecause(err)
	if !ok {
		return
	}
	if why == prohibited {
		e.forbids.Do(func() {
			e.gate.log.Warn("ping does not leave this network: the host's net.ipv4.ping_group_range leaves you out",
				"hint", mend.Here().Sysctl("net.ipv4.ping_group_range", mend.EveryGroup))
		})
	}
	e.gate.answer(unreachablePacket(p, why))
}

// dialPing opens a ping socket connected to dst. package net has no such socket without a name to listen on.
func dialPing(dst netip.Addr) (socket, error) {
	family, proto := unix.AF_INET6, unix.IPPROTO_ICMPV6
	var to unix.Sockaddr = &unix.SockaddrInet6{Addr: dst.As16()}
	if dst.Is4() {
		family, proto = unix.AF_INET, unix.IPPROTO_ICMP
		to = &unix.SockaddrInet4{Addr: dst.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, fmt.Errorf("opening a ping socket: %w", err)
	}
	if err := unix.Connect(fd, to); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connecting a ping socket to %s: %w", dst, err)
	}
	return connFromFD(fd, "ping")
}

// connFromFD gives a socket to Go's poller. It owns fd.
func connFromFD(fd int, name string) (socket, error) {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // FileConn has its own copy
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("polling a %s socket: %w", name, err)
	}
	s, ok := c.(socket)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("polling a %s socket: unexpected %T", name, c)
	}
	return s, nil
}
