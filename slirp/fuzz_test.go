package slirp

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/whisk-sandbox/whisk/config"
)

// update has the tests that capture real traffic write it down as seeds of the fuzz targets: go test -run Capture -update.
var update = flag.Bool("update", false, "write captured packets and DNS messages to testdata/fuzz")

// seed writes one input of a fuzz target, with a name of its own content.
func seed(t *testing.T, target, name string, b []byte) {
	t.Helper()
	dir := filepath.Join("testdata", "fuzz", target)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", b)
	sum := sha256.Sum256(b)
	if err := os.WriteFile(filepath.Join(dir, name+"-"+hex.EncodeToString(sum[:4])), []byte(text), 0o644); err != nil {
		t.Fatalf("writing a seed (the tests run as an ordinary user, who must be able to): %v", err)
	}
}

// capture records the IP packets that leave a sandbox while f runs: real ones, of the kernel's own sockets.
func capture(t *testing.T, ns *namespace, f func()) [][]byte {
	t.Helper()
	fd := -1
	err := ns.do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(uint16(unix.ETH_P_ALL)<<8|uint16(unix.ETH_P_ALL)>>8))
		return err
	})
	if err != nil {
		t.Fatalf("opening a packet socket: %v", err)
	}
	defer unix.Close(fd)
	f()
	time.Sleep(50 * time.Millisecond)
	var out [][]byte
	b := make([]byte, 1<<17)
	for {
		n, from, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			return out
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING && ll.Ifindex == indexSandbox {
			out = append(out, bytes.Clone(b[:n]))
		}
	}
}

// describe names a captured packet by what it is.
func describe(b []byte) string {
	p, err := parsePacket(b)
	family := map[byte]string{4: "ipv4", 6: "ipv6"}[b[0]>>4]
	switch {
	case err != nil:
		return family + "-" + strings.ReplaceAll(err.Error(), " ", "-")
	case p.proto == protoTCP:
		flags := header.TCP(p.transport).Flags()
		return strings.ToLower(fmt.Sprintf("%s-tcp-%s", family, strings.Join(strings.Fields(strings.Trim(flags.String(), " ")), "")))
	case p.proto == protoUDP:
		return family + "-udp"
	}
	return family + "-echo"
}

// TestCapturePackets has the kernel send one packet of each kind that a sandbox can, and wants each parsed as what it is.
func TestCapturePackets(t *testing.T) {
	inet := internet(t)
	n := newNetwork(t, func(c *Config) { c.NoFastPath = true })
	app, _ := newSandbox(t, n, "web")
	want := map[string]bool{}
	var all [][]byte
	for _, remote := range []string{inetV4, inetV6} {
		tcp := inet.echoTCP("tcp", at(remote, 0)).String()
		udp := inet.echoUDP("udp", at(remote, 0)).String()
		all = append(all, capture(t, app, func() {
			c := app.mustDial("tcp", tcp).(*net.TCPConn)
			roundTrip(t, c, []byte("hello"))
			roundTrip(t, c, bytes.Repeat([]byte("x"), 3000))
			_ = c.CloseWrite()
			_, _ = c.Read(make([]byte, 1))
			c.Close()
			c = app.mustDial("tcp", tcp).(*net.TCPConn)
			_ = c.SetLinger(0)
			c.Close()
			u := app.mustDial("udp", udp)
			roundTrip(t, u, []byte("hello"))
			_, _ = ping(t, app, remote, 3, []byte("hello"))
			app.sendOptions(remote, portOf(mustAddr(t, udp)))
		})...)
		family := map[bool]string{true: "ipv4", false: "ipv6"}[netip.MustParseAddr(remote).Is4()]
		for _, kind := range []string{"tcp-s", "tcp-a", "tcp-pa", "tcp-fa", "udp", "echo", "fragment"} {
			want[family+"-"+kind] = false
		}
	}
	for _, b := range all {
		kind := describe(b)
		first := !want[kind]
		want[kind] = true
		if *update && first && len(b) < 4000 {
			seed(t, "FuzzPacket", kind, b)
		}
	}
	for kind, seen := range want {
		if !seen {
			t.Errorf("no packet of kind %s among %v", kind, want)
		}
	}
}

func mustAddr(t *testing.T, s string) net.Addr {
	t.Helper()
	a, err := net.ResolveUDPAddr("udp", s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// sendOptions sends datagrams with what most never have: IP options or extension headers, and fragments.
func (ns *namespace) sendOptions(remote string, port int) {
	ns.tb.Helper()
	to := netip.AddrPortFrom(netip.MustParseAddr(remote), uint16(port))
	err := ns.do(func() error {
		family := unix.AF_INET6
		if to.Addr().Is4() {
			family = unix.AF_INET
		}
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if family == unix.AF_INET {
			err = unix.SetsockoptString(fd, unix.SOL_IP, unix.IP_OPTIONS, "\x94\x04\x00\x00") // router alert, RFC 2113
		} else {
			err = unix.SetsockoptString(fd, unix.SOL_IPV6, unix.IPV6_DSTOPTS, "\x00\x00\x01\x04\x00\x00\x00\x00") // padding, RFC 8200 §4.2
		}
		if err != nil {
			return fmt.Errorf("setting options: %w", err)
		}
		if err := unix.Sendto(fd, []byte("hello"), 0, sockaddrOf(to)); err != nil {
			return err
		}
		return nil
	})
	if err != nil {
		ns.tb.Fatalf("sending options to %s: %v", remote, err)
	}
	if to.Addr().Is4() {
		first := udpPacket(netip.AddrPortFrom(netip.IPv4Unspecified(), 1), to, make([]byte, 80)) // the kernel puts the source in
		first[6] |= 0x20                                                                         // more fragments
		ns.sendRaw(first, to.Addr())
		return
	}
	whole := udpPacket(netip.AddrPortFrom(ns.ownIPv6(), 1), to, make([]byte, 80))
	first := append(bytes.Clone(whole[:40]), protoUDP, 0, 0, 1, 1, 2, 3, 4) // RFC 8200 §4.5: offset 0, more to come
	first[5] += 8
	first[6] = uint8(header.IPv6FragmentExtHdrIdentifier)
	ns.sendRaw(append(first, whole[40:]...), to.Addr())
}

// ownIPv6 is the namespace's address on its link.
func (ns *namespace) ownIPv6() (own netip.Addr) {
	ns.tb.Helper()
	err := ns.do(func() error {
		l, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		addrs, err := l.Addrs()
		for _, a := range addrs {
			if p, perr := netip.ParsePrefix(a.String()); perr == nil && p.Addr().Is6() {
				own = p.Addr()
			}
		}
		return err
	})
	if err != nil || !own.IsValid() {
		ns.tb.Fatalf("finding the IPv6 address: %v", err)
	}
	return own
}

// TestCaptureQuestions has two real resolvers (Go's, and dns.Client's with options) ask, and wants each question answered.
func TestCaptureQuestions(t *testing.T) {
	n := newNetwork(t)
	app, _ := newSandbox(t, n, "web")
	gw4, _ := n.Gateway()
	var asked int
	packets := capture(t, app, func() {
		for _, q := range realQuestions() {
			b, err := q.Pack()
			if err != nil {
				t.Fatal(err)
			}
			c := app.mustDial("udp", at(gw4, 53))
			_, _ = c.Write(b)
			answer := make([]byte, 4096)
			m, err := c.Read(answer)
			if err != nil {
				t.Fatalf("%v is not answered: %v", q.Question, err)
			}
			var a dns.Msg
			if err := a.Unpack(answer[:m]); err != nil || a.Id != q.Id || !a.Response {
				t.Errorf("%v is answered with %v, %v", q.Question, a, err)
			}
			asked++
		}
	})
	for _, b := range packets {
		p, err := parsePacket(b)
		if err != nil || p.proto != protoUDP || p.dst.Port() != portDNS {
			continue
		}
		asked--
		if *update {
			seed(t, "FuzzQuestion", "udp", p.transport[header.UDPMinimumSize:])
		}
	}
	if asked != 0 {
		t.Errorf("%d questions were not captured", asked)
	}
}

// realQuestions are questions as resolvers ask them.
func realQuestions() []*dns.Msg {
	var out []*dns.Msg
	for _, name := range []string{"web.", "WEB.shop.", "host.whisk.internal.", "2.0.0.10.in-addr.arpa.", "example.org.", ".", "_http._tcp.web.",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."} {
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypePTR, dns.TypeHTTPS, dns.TypeANY} {
			q := new(dns.Msg)
			q.SetQuestion(name, kind)
			switch kind {
			case dns.TypeAAAA:
				q.SetEdns0(1232, false)
			case dns.TypeHTTPS:
				q.SetEdns0(4096, true)
				q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"})
			case dns.TypeANY:
				q.CheckingDisabled, q.AuthenticatedData = true, true
			}
			out = append(out, q)
		}
	}
	chaos := new(dns.Msg)
	chaos.SetQuestion("version.bind.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	notify := new(dns.Msg)
	notify.SetNotify("web.")
	return append(out, chaos, notify)
}

// FuzzQuestion gives the name server arbitrary messages: what it answers itself must be a valid answer to the question,
// and fit.
func FuzzQuestion(f *testing.F) {
	for _, q := range realQuestions() {
		b, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	s, e := fuzzServer(f)
	var askers []*Endpoint
	for _, mode := range []config.EgressMode{config.EgressAll, config.EgressInternet, config.EgressNone, config.EgressList} {
		asker := &Endpoint{name: e.name, v4: e.v4, v6: e.v6, egress: config.Egress{Mode: mode}}
		if mode == config.EgressList {
			asker.egress.Rules = rules(f, "example.org", "*.example.org")
		}
		askers = append(askers, asker)
	}
	askers = append(askers, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(dns.Msg)
		if q.Unpack(b) != nil {
			return
		}
		for _, asker := range askers {
			m := s.answer(q, asker)
			if m == nil {
				if len(q.Question) != 1 {
					t.Fatalf("%d questions would be forwarded", len(q.Question))
				}
				continue
			}
			if m.Id != q.Id || !m.Response {
				t.Fatalf("answer %d to question %d", m.Id, q.Id)
			}
			size := plainUDP
			if opt := q.IsEdns0(); opt != nil && int(opt.UDPSize()) > size {
				size = int(opt.UDPSize())
			}
			m.Truncate(size)
			out, err := m.Pack()
			if err != nil {
				t.Fatalf("answer to %v cannot be sent: %v", q.Question, err)
			}
			if len(out) > size {
				t.Fatalf("answer to %v has %d bytes, more than %d", q.Question, len(out), size)
			}
			back := new(dns.Msg)
			if err := back.Unpack(out); err != nil {
				t.Fatalf("answer to %v cannot be read: %v", q.Question, err)
			}
		}
	})
}

// fuzzServer is a name server without sockets, with two sandboxes.
func fuzzServer(tb testing.TB) (*nameServer, *Endpoint) {
	tb.Helper()
	c := Config{Name: "shop"}
	c.IPv4, c.IPv6 = netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")
	p, err := newPlan(c)
	if err != nil {
		tb.Fatal(err)
	}
	s := &nameServer{log: slog.New(slog.DiscardHandler), isHost: func(netip.Addr) bool { return false }, names: newNames("shop"), gateway: [2]netip.Addr{p.gw4, p.gw6}, subnets: [2]netip.Prefix{p.v4, p.v6}}
	var first *Endpoint
	for i, name := range []string{"web", "db"} {
		v4 := p.gw4.Next()
		for range i {
			v4 = v4.Next()
		}
		e := &Endpoint{name: name, aliases: []string{"both"}, v4: v4, v6: sixFor(p, v4)}
		if err := s.names.add(e); err != nil {
			tb.Fatal(err)
		}
		if first == nil {
			first = e
		}
	}
	return s, first
}
