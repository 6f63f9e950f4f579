package slirp

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	// RFC 4787 REQ-5 asks for two minutes at least for a flow that was answered. One that was not is a probe, or a log
	// that nobody reads; one to port 53 is a query, and resolvers use a new port for each.
	udpReplied   = 3 * time.Minute
	udpUnreplied = 30 * time.Second
	udpDNS       = 10 * time.Second

	// maxUDPFlows bounds descriptors: each flow has a socket of the host's.
	maxUDPFlows = 4096

	// maxUDPSource is one sandbox's share, so that none crowds the others out.
	maxUDPSource = 1024

	portDNS = 53
)

// udpFlows are the UDP flows that leave the network, one connected socket of the host for each.
type udpFlows struct {
	gate    *gate
	buffers datagrams
	flows   *sessions[flow]
	next    train // of the uplink's reader
}

func (u *udpFlows) init(g *gate) {
	u.gate = g
	u.flows = newSessions(maxUDPFlows, maxUDPSource, flow.source)
}

// datagram sends one datagram of an app's to where it was meant for.
func (u *udpFlows) datagram(p packet) {
	s := u.flows.get(p.flow)
	if s == nil {
		v, ok := u.gate.admit(p)
		if !ok {
			return
		}
		log := u.gate.flowlog.begin(p.flow)
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(p.dst)) // does not wait
		if err != nil {
			u.refuse(p, err)
			log.fail(err)
			log.end()
			return
		}
		if !v.host && ownAddress(c, p.dst.Addr()) {
			c.Close()
			u.gate.answer(unreachablePacket(p, prohibited))
			log.deny(becameHost)
			log.end()
			return
		}
		s = newSession(c)
		s.log, s.noQUIC = log, v.noQUIC
		if !u.flows.put(p.flow, s) {
			return
		}
		f := p.flow
		u.gate.wg.Go(func() { u.receive(f, s) })
	}
	if s.noQUIC && isQUIC(p.transport[header.UDPMinimumSize:]) {
		u.gate.answer(unreachablePacket(p, prohibited))
		s.log.deny(hiddenByQUIC)
		u.flush() // what came before
		u.flows.end(p.flow, s)
		return
	}
	if !u.next.add(s, p) {
		u.flush()
		u.next.add(s, p)
	}
}

// flush sends what datagram has put together.
func (u *udpFlows) flush() {
	t := &u.next
	packets := t.packets
	if len(packets) == 0 {
		return
	}
	s := t.session
	s.touch()
	if len(packets) > 1 {
		switch err := t.send(); {
		case err == nil:
			s.log.count(int64(t.bytes), 0)
			packets = nil
		case cannotSend(err):
			s.alone = true
		default: // of a datagram before, or of the first of these
			u.refuse(packets[0], err)
			s.log.fail(err)
			packets = packets[1:]
		}
	}
	for _, p := range packets {
		n, err := s.conn.Write(p.transport[header.UDPMinimumSize:])
		if err != nil {
			u.refuse(p, err)
			s.log.fail(err)
		}
		s.log.count(int64(n), 0)
	}
	*t = train{packets: t.packets[:0]}
}

// receive carries the answers of one flow back.
func (u *udpFlows) receive(f flow, s *session) {
	defer s.log.end()
	defer u.flows.end(f, s)
	unreplied, replied := udpUnreplied, udpReplied
	if f.dst.Port() == portDNS {
		unreplied, replied = udpDNS, udpDNS
	}
	u.buffers.receive(s.conn, func() time.Time { return s.expiry(unreplied, replied) }, func(b []byte) {
		s.touch()
		s.replied.Store(true)
		s.log.count(0, int64(len(b)))
		u.gate.answer(udpPacket(f.dst, f.src, b))
	}, func(err error) bool {
		s.log.fail(err)
		// The datagram in question is gone; its headers are enough for the app's kernel to find the socket.
		if ip := udpPacket(f.src, f.dst, nil); ip != nil {
			if p, perr := parsePacket(ip); perr == nil {
				u.refuse(p, err)
			}
		}
		return true
	})
}

// refuse tells the app what became of a datagram.
func (u *udpFlows) refuse(p packet, err error) {
	if why, ok := unreachableBecause(err); ok {
		u.gate.answer(unreachablePacket(p, why))
	} else if errors.Is(err, unix.ECONNREFUSED) {
		u.gate.answer(unreachablePacket(p, noPort))
	} else if u.gate.ctx.Err() == nil {
		u.gate.log.Debug("datagram not sent", "to", p.dst, "err", err)
	}
}
