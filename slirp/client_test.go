package slirp

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
)

// whoTCP serves each client the address that it is seen as.
func (ns *namespace) whoTCP(addr string) net.Addr {
	l := ns.listen("tcp", addr)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(c.RemoteAddr().String()))
			c.Close()
		}
	}()
	return l.Addr()
}

func (ns *namespace) whoUDP(addr string) net.Addr {
	c := ns.listenPacket("udp", addr)
	go func() {
		b := make([]byte, 1<<16)
		for {
			_, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(from.String()), from)
		}
	}()
	return c.LocalAddr()
}

func TestAppsSeeTheClientsAddress(t *testing.T) {
	inet := internet(t)
	n := newNetwork(t)
	app, e := newSandbox(t, n, "web")
	gw4, gw6 := n.Gateway()
	dialHost := func(network, addr string) (net.Conn, error) { return net.Dial(network, addr) }
	// from is what the app is to see: "" stands for the client's own address and port.
	for _, c := range []struct {
		name, publish, to, listen string
		dial                      func(string, string) (net.Conn, error)
		from                      string
	}{
		{"IPv4 from elsewhere", "0.0.0.0", hostV4, "0.0.0.0:0", inet.dial, ""},
		{"IPv6 from elsewhere", "::", hostV6, "[::]:0", inet.dial, ""},
		{"IPv4 from elsewhere to an IPv6 app", "0.0.0.0", hostV4, at(e.IPv6(), 0), inet.dial, gw6.String()},
		{"IPv6 from elsewhere to an IPv4 app", "::", hostV6, at(e.IPv4(), 0), inet.dial, gw4.String()},
		{"IPv4 from the host by its address", hostV4, hostV4, "0.0.0.0:0", dialHost, ""},
		{"IPv6 from the host by its address", hostV6, hostV6, "[::]:0", dialHost, ""},
		{"IPv4 from loopback", "127.0.0.1", "127.0.0.1", "0.0.0.0:0", dialHost, gw4.String()},
		{"IPv6 from loopback", "::1", "::1", "[::]:0", dialHost, gw6.String()},
		{"IPv4 from loopback to an app on its own loopback", "127.0.0.1", "127.0.0.1", "127.0.0.1:0", dialHost, e.IPv4().String()},
		{"IPv4 from elsewhere to an app on its own loopback", "0.0.0.0", hostV4, "127.0.0.1:0", inet.dial, e.IPv4().String()},
		{"IPv6 from loopback to an app on its own loopback", "::1", "::1", "[::1]:0", dialHost, e.IPv6().String()},
		{"IPv6 from elsewhere to an app on its own loopback", "::", hostV6, "[::1]:0", inet.dial, e.IPv6().String()},
		{"IPv6 from elsewhere to an app on its own IPv4 loopback", "::", hostV6, "127.0.0.1:0", inet.dial, e.IPv4().String()},
		{"IPv4 from loopback to an app on its own IPv6 loopback", "127.0.0.1", "127.0.0.1", "[::1]:0", dialHost, e.IPv6().String()},
	} {
		for _, protocol := range []string{"tcp", "udp"} {
			t.Run(protocol+" "+c.name, func(t *testing.T) {
				seen, client := whoAmI(t, n, app, e, protocol, c.publish, c.to, c.listen, c.dial)
				if c.from == "" && seen != client {
					t.Errorf("the app sees %s, want %s", seen, client)
				} else if c.from != "" && seen.Addr().String() != c.from {
					t.Errorf("the app sees %s, want %s", seen.Addr(), c.from)
				}
			})
		}
	}
}

// whoAmI dials a published port and returns the address that the app saw, and the client's own.
func whoAmI(t *testing.T, n *Network, app *namespace, e *Endpoint, protocol, published, to, listen string, dial func(string, string) (net.Conn, error)) (seen, client netip.AddrPort) {
	t.Helper()
	serve := app.whoTCP
	if protocol == "udp" {
		serve = app.whoUDP
	}
	a := serve(listen)
	p := publish(t, n, e, config.Port{HostIP: netip.MustParseAddr(published), App: uint16(portOf(a)), Count: 1, Protocol: protocol})[0]
	conn, err := dial(protocol, at(to, int(p.HostAddr().Port())))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if protocol == "udp" {
		_, _ = conn.Write([]byte("who am I"))
	}
	b := make([]byte, 100)
	k, err := conn.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	seen = netip.MustParseAddrPort(string(b[:k]))
	return netip.AddrPortFrom(seen.Addr().Unmap(), seen.Port()), netip.MustParseAddrPort(conn.LocalAddr().String())
}

// TestLostClientAddressesAreTold: where the kernel cannot show an app its clients' addresses, published ports work without
// and the network says so, once, and in time for whisk network inspect.
func TestLostClientAddressesAreTold(t *testing.T) {
	inet := internet(t)
	for _, protocol := range []string{"tcp", "udp"} {
		t.Run(protocol, func(t *testing.T) {
			told := make(chan string, 100)
			n := newNetwork(t, func(c *Config) {
				c.Log = slog.New(slog.NewTextHandler(lines(told), &slog.HandlerOptions{Level: slog.LevelWarn}))
			})
			// As on a kernel that lacks what it takes: the first of the rules is refused.
			if err := n.thread.do(func() error { return n.router.run(markRule(false)) }); err != nil {
				t.Fatal(err)
			}
			app, e := newSandbox(t, n, "web")
			gw4, gw6 := n.Gateway()
			local := func(network, addr string) (net.Conn, error) { return net.Dial(network, addr) }
			if seen, _ := whoAmI(t, n, app, e, protocol, "127.0.0.1", "127.0.0.1", "0.0.0.0:0", local); seen.Addr() != gw4 {
				t.Errorf("the app sees %s, want the router's %s", seen, gw4)
			}
			select {
			case line := <-told:
				t.Errorf("nothing is lost yet, but it says: %s", line)
			default:
			}
			// It is told when the port is published, before any client comes.
			publish(t, n, e, config.Port{HostIP: netip.MustParseAddr("0.0.0.0"), App: 9, Count: 1, Protocol: protocol})
			select {
			case line := <-told:
				if !strings.Contains(line, "apps do not see their clients' addresses") || !strings.Contains(line, "modprobe") {
					t.Errorf("it says: %s", line)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("nothing is said")
			}
			if seen, _ := whoAmI(t, n, app, e, protocol, "0.0.0.0", hostV4, "0.0.0.0:0", inet.dial); seen.Addr() != gw4 {
				t.Errorf("the app sees %s, want the router's %s", seen, gw4)
			}
			if seen, _ := whoAmI(t, n, app, e, protocol, "::", hostV6, "[::]:0", inet.dial); seen.Addr() != gw6 {
				t.Errorf("the app sees %s, want the router's %s", seen, gw6)
			}
			roundTrip(t, app.mustDial("tcp", inet.echoTCP("tcp", at(inetV4, 0)).String()), []byte("out"))
			select {
			case line := <-told:
				t.Errorf("it is said again: %s", line)
			default:
			}
		})
	}
}

// lines are where a log goes line by line.
type lines chan<- string

func (l lines) Write(b []byte) (int, error) { l <- string(b); return len(b), nil }

// TestOneClientOnTwoPorts: a client's port may be in use towards the same app already, by another published port.
func TestOneClientOnTwoPorts(t *testing.T) {
	inet := internet(t)
	n := newNetwork(t)
	app, e := newSandbox(t, n, "web")
	a := app.echoTCP("tcp", "0.0.0.0:0")
	port := config.Port{HostIP: netip.MustParseAddr("0.0.0.0"), App: uint16(portOf(a)), Count: 1, Protocol: "tcp"}
	one, two := publish(t, n, e, port)[0], publish(t, n, e, port)[0]
	dial := func(from net.Addr, p *Published) (c net.Conn) {
		err := inet.do(func() (err error) {
			d := net.Dialer{LocalAddr: from, Control: reuseAddress}
			c, err = d.Dial("tcp", at(hostV4, int(p.HostAddr().Port())))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		return c
	}
	first := dial(nil, one)
	second := dial(first.LocalAddr(), two)
	roundTrip(t, first, []byte("one"))
	roundTrip(t, second, []byte("two"))
	roundTrip(t, first, []byte("three"))
}

func reuseAddress(_, _ string, c syscall.RawConn) (err error) {
	cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	return errors.Join(err, cerr)
}
