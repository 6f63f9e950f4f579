package slirp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// handshakes are conversations that are about SYNs: lost, sent again, doubled, and answered with an error.
func handshakes() []conversation {
	return []conversation{
		{"the app gives up on who never answers", func(r *trial) {
			to := at(r.pick("198.51.100.2", "2001:db8::2"), 7)
			r.over.server.meetSYNs(r.t, r.over.name, netip.MustParseAddrPort(to), &expr.Verdict{Kind: expr.VerdictDrop})
			begun := time.Now()
			_, err := r.over.client.dialWith(to, func(fd int) error {
				return unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_USER_TIMEOUT, 1500) // ms
			})
			r.note(&r.client, "connects: %s, before its time %v", outcome(err), time.Since(begun) < time.Second)
		}, "connects: ETIMEDOUT, before its time false"},
		{"first SYNs are lost", func(r *trial) {
			l, addr := r.listen(16)
			lift := r.over.server.meetSYNs(r.t, r.over.name, netip.MustParseAddrPort(addr), &expr.Verdict{Kind: expr.VerdictDrop})
			var c *side
			together(func() { c = r.dial(addr) }, func() { time.Sleep(2300 * time.Millisecond); lift() })
			r.alone(l, c)
		}, "server has no other connection"},
		{"SYN comes several times at once", func(r *trial) {
			l, addr := r.listen(16)
			r.over.client.doubleSYNs(r.t, netip.MustParseAddrPort(addr), 5)
			r.alone(l, r.dial(addr))
		}, "server has no other connection"},
		{"SYN comes several times while nobody answers", func(r *trial) {
			l, addr := r.listen(16)
			lift := r.over.server.meetSYNs(r.t, r.over.name, netip.MustParseAddrPort(addr), &expr.Verdict{Kind: expr.VerdictDrop})
			r.over.client.doubleSYNs(r.t, netip.MustParseAddrPort(addr), 5)
			var c *side
			together(func() { c = r.dial(addr) }, func() { time.Sleep(700 * time.Millisecond); lift() })
			r.alone(l, c)
		}, "server has no other connection"},
		{"another SYN from the same port while the first is under way", func(r *trial) {
			l, addr := r.listen(16)
			lift := r.over.server.meetSYNs(r.t, r.over.name, netip.MustParseAddrPort(addr), &expr.Verdict{Kind: expr.VerdictDrop})
			port := r.freePort()
			fd := r.over.client.beginConnect(r.t, port, netip.MustParseAddrPort(addr))
			time.Sleep(200 * time.Millisecond)
			unix.Close(fd) // says nothing: no SYN has been answered
			var c *side
			together(func() { c = r.dialFrom(port, addr) }, func() { time.Sleep(500 * time.Millisecond); lift() })
			r.alone(l, c)
		}, "server has no other connection"},
		rejected("no route, says a router", unix.NFT_REJECT_ICMPX_UNREACH, unix.NFT_REJECT_ICMPX_NO_ROUTE, "ENETUNREACH"),
		rejected("no such host, says a router", unix.NFT_REJECT_ICMPX_UNREACH, unix.NFT_REJECT_ICMPX_HOST_UNREACH, "EHOSTUNREACH"),
		rejected("no such port, says a router", unix.NFT_REJECT_ICMPX_UNREACH, unix.NFT_REJECT_ICMPX_PORT_UNREACH, "ECONNREFUSED"),
		rejected("prohibited, says a router", unix.NFT_REJECT_ICMPX_UNREACH, unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED, "connects: EHOSTUNREACH|connects: EACCES"),
		rejected("reset by a firewall", unix.NFT_REJECT_TCP_RST, 0, "ECONNREFUSED"),
		rejectedAs("no such protocol; not a neighbour", 2, 2, "ENOPROTOOPT|EHOSTUNREACH"),
		rejectedAs("source route failed; policy", 5, 5, "ENOTSUP|EACCES"),
		rejectedAs("unknown network; rejected route", 6, 6, "ENETUNREACH|EACCES"),
		rejectedAs("unknown host", 7, 3, "EHOSTDOWN|EHOSTUNREACH"),
		rejectedAs("isolated", 8, 3, "ENONET|EHOSTUNREACH"),
		rejectedAs("network prohibited", 9, 1, "ENETUNREACH|EACCES"),
		rejectedAs("host prohibited", 10, 1, "EHOSTUNREACH|EACCES"),
	}
}

// reuses are conversations of a client that has used its port before.
func reuses() []conversation {
	return []conversation{
		{"port is used again at once after a reset", func(r *trial) {
			r.again(func(c, _ *side) { _ = c.SetLinger(0); c.Close() })
		}, "client has had 30 connections"},
		{"port is used again at once after the server's end", func(r *trial) {
			// The server's kernel remembers those (TIME_WAIT) and takes a SYN with a higher number, RFC 1122 §4.2.2.13.
			r.again(func(c, s *side) { s.Close(); _, _ = c.Read(make([]byte, 1)); c.Close() })
		}, "client has had 30 connections"},
	}
}

// rejected is a connection that a firewall beyond the host rejects.
func rejected(name string, kind uint32, code uint8, want string) conversation {
	return conversation{name, func(r *trial) {
		_, addr := r.listen(1)
		r.over.server.meetSYNs(r.t, r.over.name, netip.MustParseAddrPort(addr), &expr.Reject{Type: kind, Code: code})
		r.dial(addr)
	}, want}
}

// rejectedAs is rejected with the codes of ICMP that only one family has.
func rejectedAs(name string, code4, code6 uint8, want string) conversation {
	return conversation{name + ", says a router", func(r *trial) {
		code := code4
		if r.six() {
			code = code6
		}
		rejected("", unix.NFT_REJECT_ICMP_UNREACH, code, "").run(r)
	}, want}
}

// alone exchanges a word and wants no other connection to have been made.
func (r *trial) alone(l *net.TCPListener, c *side) {
	if c == nil {
		return
	}
	s := r.accept(l)
	c.send("hello")
	s.receive(5)
	s.send("world")
	c.receive(5)
	_ = l.SetDeadline(time.Now().Add(500 * time.Millisecond))
	switch other, err := l.Accept(); {
	case err == nil:
		other.Close()
		s.saw("has another connection")
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.saw("has no other connection")
	default:
		s.saw("accepts: %v", err)
	}
	c.close()
	s.receive(1)
}

// again makes connections from one port, each as soon as the one before has ended.
func (r *trial) again(end func(client, server *side)) {
	l, addr := r.listen(16)
	port := r.freePort()
	for i := range 30 {
		c := r.dialFrom(port, addr)
		if c == nil {
			return
		}
		s := r.accept(l)
		word := fmt.Sprintf("%02d", i)
		said := c.quietly(func(q *side) { q.send(word) }) + s.quietly(func(q *side) { q.receive(2); q.send(word) }) + c.quietly(func(q *side) { q.receive(2) })
		if strings.Count(said, word+`": ok`) != 4 {
			c.saw("connection %d: %s", i, said)
			return
		}
		end(c, s)
	}
	c := r.dialFrom(port, addr)
	if c != nil {
		c.saw("has had 30 connections")
	}
}

// freePort is a port of the client's that nobody has.
func (r *trial) freePort() int {
	l := r.over.client.listen("tcp", "[::]:0")
	defer l.Close()
	return portOf(l.Addr())
}

// dialFrom is dial from a port that has been used before.
func (r *trial) dialFrom(port int, addr string) *side {
	bind := bindTo(port, netip.MustParseAddrPort(addr).Addr().Is6())
	c, err := r.over.client.dialWith(addr, bind)
	for end := time.Now().Add(patience); errors.Is(err, unix.EADDRNOTAVAIL) && time.Now().Before(end); time.Sleep(time.Millisecond) {
		c, err = r.over.client.dialWith(addr, bind) // the last end of the one before is on its way
	}
	if err != nil {
		r.note(&r.client, "connects: %s", outcome(err))
		return nil
	}
	return r.newSide(c, &r.client)
}

func bindTo(port int, six bool) func(fd int) error {
	return func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
		a := netip.IPv4Unspecified()
		if six {
			a = netip.IPv6Unspecified()
		}
		return unix.Bind(fd, sockaddrOf(netip.AddrPortFrom(a, uint16(port))))
	}
}

// dialWith connects with a socket that has been seen to.
func (ns *namespace) dialWith(addr string, prepare func(fd int) error) (*net.TCPConn, error) {
	var c net.Conn
	err := ns.do(func() (err error) {
		d := net.Dialer{Timeout: patience, KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) (err error) {
			cerr := raw.Control(func(fd uintptr) { err = prepare(int(fd)) })
			return errors.Join(err, cerr)
		}}
		c, err = d.Dial("tcp", addr)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// beginConnect sends a SYN and leaves it at that.
func (ns *namespace) beginConnect(t *testing.T, port int, to netip.AddrPort) int {
	t.Helper()
	fd := -1
	err := ns.do(func() (err error) {
		family := unix.AF_INET
		if to.Addr().Is6() {
			family = unix.AF_INET6
		}
		if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := bindTo(port, to.Addr().Is6())(fd); err != nil {
			return err
		}
		if err := unix.Connect(fd, sockaddrOf(to)); err != unix.EINPROGRESS {
			return fmt.Errorf("connecting: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// meetSYNs has SYNs for an address meet a fate, until it is lifted or the test ends. who tells several apart.
func (ns *namespace) meetSYNs(t *testing.T, who string, to netip.AddrPort, fate expr.Any) (lift func()) {
	t.Helper()
	return ns.meetPackets(t, who, to, []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(header.TCPFlagSyn)}},
	}, fate)
}

// meetPackets is meetSYNs for what else TCP sends there, too, if it is like what is given.
func (ns *namespace) meetPackets(t *testing.T, who string, to netip.AddrPort, like []expr.Any, fate expr.Any) (lift func()) {
	t.Helper()
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: strings.Map(func(c rune) rune {
		if c == ' ' || c == '[' || c == ']' || c == ':' || c == '.' {
			return '-'
		}
		return c
	}, who+to.String())}
	change := func(f func(c *nftables.Conn)) {
		t.Helper()
		err := ns.do(func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			f(c)
			return c.Flush()
		})
		if err != nil {
			t.Fatalf("changing the firewall: %v", err)
		}
	}
	family, offset, length := byte(unix.NFPROTO_IPV4), uint32(16), uint32(4)
	if to.Addr().Is6() {
		family, offset, length = unix.NFPROTO_IPV6, 24, 16
	}
	change(func(c *nftables.Conn) {
		c.AddTable(table)
		chain := c.AddChain(&nftables.Chain{Name: "in", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(append([]expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protoTCP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: to.Addr().AsSlice()},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(to.Port())},
		}, like...), fate)})
	})
	lifted := false
	lift = func() {
		if !lifted {
			lifted = true
			change(func(c *nftables.Conn) { c.DelTable(table) })
		}
	}
	t.Cleanup(lift)
	return lift
}

// doubleSYNs sends the first SYN of the namespace's to an address some more times, as it is.
func (ns *namespace) doubleSYNs(t *testing.T, to netip.AddrPort, times int) {
	t.Helper()
	link := ns.tap(t, unix.PACKET_OUTGOING)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			p, ok := link.next()
			if !ok {
				return
			}
			if p.proto != protoTCP || p.dst != to || header.TCP(p.transport).Flags() != header.TCPFlagSyn {
				continue
			}
			syn := header.TCP(p.transport) // the kernel has left its sum to the device
			syn.SetChecksum(0)
			syn.SetChecksum(transportChecksum(protoTCP, p.src.Addr(), p.dst.Addr(), p.transport))
			for range times {
				ns.sendRaw(p.ip, to.Addr())
			}
			return
		}
	}()
	t.Cleanup(func() { link.close(); <-done })
}

// tap sees the packets that leave or come to a namespace.
type tap struct {
	f    *os.File
	kind uint8 // PACKET_OUTGOING or PACKET_HOST
}

func (ns *namespace) tap(t *testing.T, kind uint8) *tap {
	t.Helper()
	fd := -1
	err := ns.do(func() (err error) {
		all := uint16(unix.ETH_P_ALL)
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all<<8|all>>8))
		return err
	})
	if err != nil {
		t.Fatalf("opening a packet socket: %v", err)
	}
	l := &tap{os.NewFile(uintptr(fd), "tap"), kind}
	t.Cleanup(l.close)
	return l
}

func (l *tap) close() { l.f.Close() }

// next waits for a packet; false: it is closed, or its deadline has come.
func (l *tap) next() (packet, bool) {
	b := make([]byte, 1<<16)
	raw, err := l.f.SyscallConn()
	if err != nil {
		return packet{}, false
	}
	for {
		n, from := 0, unix.Sockaddr(nil)
		var rerr error
		if err := raw.Read(func(fd uintptr) bool {
			n, from, rerr = unix.Recvfrom(int(fd), b, 0)
			return rerr != unix.EAGAIN
		}); err != nil || rerr != nil {
			return packet{}, false
		}
		if link, ok := from.(*unix.SockaddrLinklayer); !ok || link.Pkttype != l.kind {
			continue
		}
		if p, err := parsePacket(bytes.Clone(b[:n])); err == nil {
			return p, true
		}
	}
}

// TestNewestSYNIsAnswered has an app give up while its destination is silent, and begin anew from the same port: what comes
// is for the second SYN, whose kernel takes no other.
func TestNewestSYNIsAnswered(t *testing.T) {
	inet := internet(t)
	for _, slow := range []bool{false, true} {
		n := newNetwork(t, func(c *Config) { c.NoFastPath = slow })
		app, e := newSandbox(t, n, "web")
		for _, c := range []struct {
			name  string
			open  bool
			flags header.TCPFlags
		}{
			{"connected", true, header.TCPFlagSyn | header.TCPFlagAck},
			{"refused", false, header.TCPFlagRst | header.TCPFlagAck},
		} {
			for i, remote := range []string{inetV4, inetV6} {
				t.Run(fmt.Sprintf("%s, %s, slow %v", c.name, remote, slow), func(t *testing.T) {
					l := inet.listenBacklog(remote, 4)
					dst := netip.MustParseAddrPort(l.Addr().String())
					if !c.open {
						l.Close()
					}
					lift := inet.meetSYNs(t, "newest", dst, &expr.Verdict{Kind: expr.VerdictDrop})
					link := app.tap(t, unix.PACKET_HOST)
					_ = link.f.SetReadDeadline(time.Now().Add(patience))
					from := netip.AddrPortFrom([]netip.Addr{e.IPv4(), e.IPv6()}[i], 4000)
					for _, number := range []uint32{100, 200} {
						app.sendRaw(numberedSYN(from, dst, number), dst.Addr())
					}
					time.Sleep(100 * time.Millisecond) // both are held; the host tries again after a second
					lift()
					for {
						p, ok := link.next()
						if !ok {
							t.Fatal("no answer")
						}
						if p.proto != protoTCP || p.src != dst {
							continue
						}
						if got := header.TCP(p.transport); got.Flags() != c.flags || got.AckNumber() != 201 {
							t.Errorf("the answer is %v to number %d, want %v to 200", got.Flags(), got.AckNumber()-1, c.flags)
						}
						return
					}
				})
			}
		}
	}
}

// numberedSYN is a SYN with a sequence number of its own.
func numberedSYN(from, to netip.AddrPort, number uint32) []byte {
	b := synPacket(from, to)
	p, err := parsePacket(b)
	if err != nil {
		panic(err)
	}
	syn := header.TCP(p.transport)
	syn.SetSequenceNumber(number)
	syn.SetChecksum(0)
	syn.SetChecksum(transportChecksum(protoTCP, from.Addr(), to.Addr(), p.transport))
	return b
}
