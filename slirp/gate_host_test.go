package slirp

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

func TestRoutedHere(t *testing.T) {
	for _, c := range []struct {
		name       string
		routes     []netlink.Route
		err        error
		own, known bool
	}{
		{"a local address", []netlink.Route{{Type: unix.RTN_LOCAL}}, nil, true, true},
		{"a broadcast address", []netlink.Route{{Type: unix.RTN_UNICAST}, {Type: unix.RTN_BROADCAST}}, nil, true, true},
		{"elsewhere", []netlink.Route{{Type: unix.RTN_UNICAST}}, nil, false, true},
		{"no route", nil, unix.ENETUNREACH, false, true},
		{"an unreachable route", nil, unix.EHOSTUNREACH, false, true},
		{"a prohibited route", nil, unix.EACCES, false, true},
		{"a blackhole route", nil, unix.EINVAL, false, true},
		{"no such route", nil, unix.ESRCH, false, true},
		{"no memory", nil, unix.ENOBUFS, true, false},
		{"a socket that is gone", nil, unix.EBADF, true, false},
		{"an error of Go's", nil, errors.New("wrong sequence number"), true, false},
		{"no answer", nil, nil, true, false},
	} {
		if own, known := routedHere(c.routes, c.err); own != c.own || known != c.known {
			t.Errorf("%s: own %v, known %v", c.name, own, known)
		}
	}
}

// TestAddressThatBecomesTheHosts gives the host an address that a sandbox has flows to: they end, and what listens there on the
// host hears nothing of them.
func TestAddressThatBecomesTheHosts(t *testing.T) {
	inet := internet(t)
	var flows flowsOf
	n := newNetwork(t, func(c *Config) { c.OnFlow = flows.take })
	app, _ := newSandbox(t, n, "web")
	host := &namespace{t, mustHostNS(t)}
	for _, a := range []string{"198.51.100.77", "2001:db8::77"} {
		t.Run(a, func(t *testing.T) {
			bits := "/32"
			if strings.Contains(a, ":") {
				bits = "/128"
			}
			if err := inet.do(func() error { return setUp("inet", a+bits) }); err != nil {
				t.Fatal(err)
			}
			port := portOf(inet.echoTCP("tcp", at(a, 0)))
			inet.echoUDP("udp", at(a, port))
			c, u := app.mustDial("tcp", at(a, port)), app.mustDial("udp", at(a, port))
			roundTrip(t, c, []byte("before"))
			roundTrip(t, u, []byte("before"))
			if _, err := ping(t, app, a, 1, nil); err != nil {
				t.Fatal(err)
			}
			if err := setUp("wan", a+bits); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				l, _ := netlink.LinkByName("wan")
				addr, _ := netlink.ParseAddr(a + bits)
				if err := netlink.AddrDel(l, addr); err != nil {
					t.Error(err)
				}
			})
			heard := make(chan string, 8)
			mine := host.listenPacket("udp", at(a, port))
			go func() {
				b := make([]byte, 64)
				for {
					m, _, err := mine.ReadFrom(b)
					if err != nil {
						return
					}
					heard <- string(b[:m])
				}
			}()
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the connection: %v, want it reset", err)
			}
			for _, protocol := range []string{"tcp", "udp", "icmp"} {
				p := port
				if protocol == "icmp" {
					p = 0
				}
				flows.awaitDenied(t, protocol, at(a, p), becameHost)
			}
			_, _ = u.Write([]byte("after"))
			if _, err := u.Read(make([]byte, 1)); !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) {
				t.Errorf("a datagram after it: %v, want it prohibited", err)
			}
			if _, err := ping(t, app, a, 2, nil); !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) {
				t.Errorf("a ping after it: %v, want it prohibited", err)
			}
			select {
			case s := <-heard:
				t.Errorf("the host hears %q", s)
			default:
			}
			if _, err := host.mustDial("udp", at(a, port)).Write([]byte("own")); err != nil || <-heard != "own" {
				t.Errorf("the host does not hear itself (%v), so this test shows nothing", err)
			}
		})
	}
}

// awaitDenied waits until a denial is told of.
func (f *flowsOf) awaitDenied(t *testing.T, protocol, to, why string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		f.mu.Lock()
		found := slices.ContainsFunc(f.all, func(fl Flow) bool {
			return fl.Denied && fl.Protocol == protocol && fl.To.String() == to && strings.Contains(fl.Why, why)
		})
		f.mu.Unlock()
		if found {
			return
		}
		if time.Now().After(end) {
			t.Errorf("%s to %s is not in the egress log as denied because %q", protocol, to, why)
			return
		}
	}
}

// awaitName waits until it is told of that a name was denied.
func (f *flowsOf) awaitName(t *testing.T, name string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		f.mu.Lock()
		found := slices.ContainsFunc(f.all, func(fl Flow) bool { return fl.Denied && fl.Protocol == "dns" && fl.Name == name })
		f.mu.Unlock()
		if found {
			return
		}
		if time.Now().After(end) {
			t.Errorf("the name %s is not in the egress log as denied", name)
			return
		}
	}
}

// TestWhatDoesNotLeaveIsRefused sends what is neither TCP, UDP nor a ping: it is answered, and logged.
func TestWhatDoesNotLeaveIsRefused(t *testing.T) {
	internet(t)
	var flows flowsOf
	n := newNetwork(t, func(c *Config) { c.OnFlow = flows.take })
	app, e := newSandbox(t, n, "web")
	timestamp := func(src, dst netip.Addr) []byte {
		ip, b := ipPacket(protoICMP, src, dst, 20)
		b[0] = uint8(header.ICMPv4Timestamp)
		return ip
	}
	of := func(proto uint8) func(src, dst netip.Addr) []byte {
		return func(src, dst netip.Addr) []byte {
			ip, _ := ipPacket(proto, src, dst, 16)
			return ip
		}
	}
	for _, c := range []struct {
		name, remote, protocol, why string
		packet                      func(src, dst netip.Addr) []byte
	}{
		{"SCTP", inetV4, "sctp", "only TCP, UDP and ping leave", of(protoSCTP)},
		{"SCTP, IPv6", inetV6, "sctp", "only TCP, UDP and ping leave", of(protoSCTP)},
		{"GRE", inetV4, "gre", "only TCP, UDP and ping leave", of(protoGRE)},
		{"another", inetV4, "ip-253", "only TCP, UDP and ping leave", of(253)},
		{"a timestamp", inetV4, "icmp", "only TCP, UDP and ping leave", timestamp},
		{"a fragment", inetV4, "udp", "fragments do not leave", func(src, dst netip.Addr) []byte {
			b := udpPacket(netip.AddrPortFrom(src, 1), netip.AddrPortFrom(dst, 2), make([]byte, 80))
			b[6] |= 0x20
			return b
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			remote := netip.MustParseAddr(c.remote)
			src, family, proto, want := e.IPv4(), unix.AF_INET, unix.IPPROTO_ICMP, []byte{byte(header.ICMPv4DstUnreachable), byte(header.ICMPv4AdminProhibited)}
			if remote.Is6() {
				src, family, proto, want = e.IPv6(), unix.AF_INET6, unix.IPPROTO_ICMPV6, []byte{byte(header.ICMPv6DstUnreachable), byte(header.ICMPv6Prohibited)}
			}
			fd := -1
			if err := app.do(func() (err error) { fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto); return err }); err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20})
			app.sendRaw(c.packet(src, remote), remote)
			b := make([]byte, 2048)
			for {
				m, _, err := unix.Recvfrom(fd, b, 0)
				if err != nil {
					t.Fatalf("no answer: %v", err)
				}
				got := b[:m]
				if remote.Is4() {
					got = got[20:]
				}
				if got[0] == want[0] && got[1] == want[1] {
					break
				}
			}
			flows.awaitDenied(t, c.protocol, at(c.remote, 0), c.why)
		})
	}
	// Errors are not answered with errors, RFC 1122 §3.2.2.
	p, err := parsePacket(unreachablePacket(packet{flow: flow{protoUDP, netip.AddrPortFrom(netip.MustParseAddr(inetV4), 1), netip.AddrPortFrom(e.IPv4(), 1)}, ip: make([]byte, 28)}, noPort))
	if !errors.Is(err, errProtocol) || p.mayBeAnswered() {
		t.Errorf("an ICMP error would be answered (%v)", err)
	}
}

// TestPeerThatNeverAnswers has a host that gives up sooner than the app would: the app learns of it.
func TestPeerThatNeverAnswers(t *testing.T) {
	const retries = "/proc/sys/net/ipv4/tcp_syn_retries"
	before, err := os.ReadFile(retries)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(retries, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile(retries, before, 0) })
	n := newNetwork(t)
	app, _ := newSandbox(t, n, "web")
	if err := app.do(func() error { return os.WriteFile(retries, []byte("6"), 0) }); err != nil { // it has the host's
		t.Fatal(err)
	}
	for _, silent := range []string{"8.99.0.1:80"} { // beyond the test's internet, which forwards nothing
		begun := time.Now()
		var c net.Conn
		err := app.do(func() (err error) {
			d := net.Dialer{Timeout: 60 * time.Second}
			c, err = d.Dial("tcp", silent)
			return err
		})
		if err == nil {
			c.Close()
		}
		if !errors.Is(err, unix.EHOSTUNREACH) || time.Since(begun) > 30*time.Second {
			t.Errorf("%s: %v after %v", silent, err, time.Since(begun))
		}
	}
}
