package slirp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
)

func publish(t *testing.T, n *Network, e *Endpoint, p config.Port) []*Published {
	t.Helper()
	out, err := n.Publish(context.Background(), e, p)
	if err != nil {
		t.Fatalf("publishing %+v: %v", p, err)
	}
	return out
}

func hostDial(t *testing.T, network string, a any) net.Conn {
	t.Helper()
	s := a.(interface{ String() string }).String()
	c, err := net.Dial(network, s)
	if err != nil {
		t.Fatalf("dialling the published port %s: %v", s, err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func TestPublishedTCP(t *testing.T) {
	n := newNetwork(t)
	app, e := newSandbox(t, n, "web")
	for _, c := range []struct {
		name   string
		host   string
		listen string
	}{
		{"IPv4 to both", "127.0.0.1", "[::]:0"},
		{"IPv4 to an IPv4 app", "127.0.0.1", "0.0.0.0:0"},
		{"IPv4 to an IPv6 app", "127.0.0.1", at(e.IPv6(), 0)},
		{"IPv6 to both", "::1", "[::]:0"},
		{"IPv6 to an IPv4 app", "::1", "0.0.0.0:0"},
		{"the host's address", hostV4, "[::]:0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := app.echoTCP("tcp", c.listen)
			p := publish(t, n, e, config.Port{HostIP: netip.MustParseAddr(c.host), App: uint16(portOf(a)), Count: 1, Protocol: "tcp"})[0]
			conn := hostDial(t, "tcp", p.HostAddr()).(*net.TCPConn)
			want := bytes.Repeat([]byte("0123456789"), 1<<18)
			go func() {
				_, _ = conn.Write(want)
				_ = conn.CloseWrite()
			}()
			got, err := io.ReadAll(conn)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("got %d bytes, %v; want %d", len(got), err, len(want))
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			if _, err := net.Dial("tcp", p.HostAddr().String()); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("after Close: got %v, want refused", err)
			}
		})
	}
}

func TestPublishedUDP(t *testing.T) {
	n := newNetwork(t)
	app, e := newSandbox(t, n, "web")
	for _, c := range []struct{ name, host, client, listen string }{
		{"IPv4", "127.0.0.1", "127.0.0.1", "[::]:0"},
		{"IPv4 to an IPv6 app", "127.0.0.1", "127.0.0.1", at(e.IPv6(), 0)},
		{"IPv6", "::1", "::1", "[::]:0"},
		{"IPv6 to an IPv4 app", "::1", "::1", "0.0.0.0:0"},
		{"all addresses answer as themselves", "0.0.0.0", hostV4, "0.0.0.0:0"},
		{"all IPv6 addresses answer as themselves", "::", hostV6, "[::]:0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := app.echoUDP("udp", c.listen)
			p := publish(t, n, e, config.Port{HostIP: netip.MustParseAddr(c.host), App: uint16(portOf(a)), Count: 1, Protocol: "udp"})[0]
			for range 2 {
				conn := hostDial(t, "udp", netip.AddrPortFrom(netip.MustParseAddr(c.client), p.HostAddr().Port()))
				for _, want := range []string{"one", "two", strings.Repeat("x", 60000)} {
					_, _ = conn.Write([]byte(want))
					got := make([]byte, 1<<16)
					m, err := conn.Read(got)
					if err != nil || string(got[:m]) != want {
						t.Fatalf("got %d bytes, %v; want %d", m, err, len(want))
					}
				}
			}
		})
	}
}

func TestPublishedBeforeTheAppListens(t *testing.T) {
	n := newNetwork(t)
	_, e := newSandbox(t, n, "web")
	p := publish(t, n, e, config.Port{App: 80, Count: 1, Protocol: "tcp"})[0]
	start := time.Now()
	c, err := net.Dial("tcp", p.HostAddr().String())
	if err == nil { // else the reset was faster than connect
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want a reset", err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("took %v", d)
	}
}

func TestPublishedRange(t *testing.T) {
	n := newNetwork(t)
	app, e := newSandbox(t, n, "web")
	for _, port := range []string{":7001", ":7002", ":7003"} {
		app.echoTCP("tcp", port)
	}
	ports := publish(t, n, e, config.Port{Host: 17001, App: 7001, Count: 3, Protocol: "tcp"})
	for i, p := range ports {
		if got, want := p.HostAddr().String(), at("127.0.0.1", 17001+i); got != want || p.AppPort != uint16(7001+i) || p.Protocol != "tcp" {
			t.Errorf("port %d: %s → %d/%s", i, got, p.AppPort, p.Protocol)
		}
		roundTrip(t, hostDial(t, "tcp", p.HostAddr()), []byte("x"))
	}
}

func TestPublishRefusesWithAReason(t *testing.T) {
	n := newNetwork(t)
	_, e := newSandbox(t, n, "web")
	taken, err := net.Listen("tcp", "127.0.0.1:18082")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		name string
		port config.Port
		want error
		hint string
	}{
		{"port taken", config.Port{Host: 18082, App: 80, Count: 1, Protocol: "tcp"}, ErrPortInUse, "18082"},
		{"last of a range taken", config.Port{Host: 18080, App: 80, Count: 3, Protocol: "tcp"}, ErrPortInUse, "18082"},
		{"address of another machine", config.Port{HostIP: netip.MustParseAddr("192.0.2.99"), Host: 18080, App: 80, Count: 1, Protocol: "tcp"}, ErrNotLocal, "ip addr"},
		{"address of another machine, UDP", config.Port{HostIP: netip.MustParseAddr("2001:db8:99::1"), App: 53, Count: 1, Protocol: "udp"}, ErrNotLocal, "ip addr"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := n.Publish(context.Background(), e, c.port)
			var pe *PortError
			if !errors.Is(err, c.want) || !errors.As(err, &pe) || !strings.Contains(pe.Hint(), c.hint) {
				t.Errorf("got %v, want %v with a hint at %q", err, c.want, c.hint)
			}
		})
	}
	// All or none: the first ports of the range that failed are free again.
	publish(t, n, e, config.Port{Host: 18080, App: 80, Count: 2, Protocol: "tcp"})

	// The test's root may bind any port here; testdata/scripts/network_port_low.txtar asks the kernel.
	low := newPortError(netip.MustParseAddrPort("127.0.0.1:80"), 80, "tcp", os.NewSyscallError("bind", unix.EACCES))
	if !errors.Is(low, ErrPortPrivileged) || !strings.Contains(low.Hint(), "8080:80") || !strings.Contains(low.Hint(), "net.ipv4.ip_unprivileged_port_start=80") {
		t.Errorf("low port: %v, hint %q", low, low.Hint())
	}
}

func TestPortPlan(t *testing.T) {
	for _, c := range []struct {
		name string
		in   config.Port
		want string // first forward, or the error's part
		n    int
	}{
		{"default address", config.Port{Host: 8080, App: 80, Count: 1, Protocol: "tcp"}, "127.0.0.1:8080", 1},
		{"free ports", config.Port{App: 80, Count: 3, Protocol: "tcp"}, "127.0.0.1:0", 3},
		{"mapped address", config.Port{HostIP: netip.MustParseAddr("::ffff:127.0.0.1"), Host: 1, App: 80, Count: 1, Protocol: "udp"}, "127.0.0.1:1", 1},
		{"too long", config.Port{Host: 65535, App: 80, Count: 2, Protocol: "tcp"}, "leaves 1-65535", 0},
		{"no app port", config.Port{Host: 80, Count: 1, Protocol: "tcp"}, "leaves 1-65535", 0},
		{"unknown protocol", config.Port{Host: 80, App: 80, Count: 1, Protocol: "sctp"}, "neither tcp nor udp", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := portPlan(c.in)
			if c.n == 0 {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("got %v, want an error with %q", err, c.want)
				}
				return
			}
			if err != nil || len(out) != c.n || out[0].host.String() != c.want {
				t.Fatalf("got %v, %v; want %d from %s", out, err, c.n, c.want)
			}
		})
	}
}

// TestPublishedAnswerBeforeTheLoopLooks: what an app says, and that it has said all, may be there before the loop learns
// that the app has answered at all. All of that is then in one event.
func TestPublishedAnswerBeforeTheLoopLooks(t *testing.T) {
	n := newNetwork(t)
	app, e := newSandbox(t, n, "web")
	l := app.listen("tcp", "0.0.0.0:0")
	p := publish(t, n, e, config.Port{App: uint16(portOf(l.Addr())), Count: 1, Protocol: "tcp"})[0]
	f := p.listener.(*tcpForward)
	for _, other := range n.loops.all[1:] {
		left := make(chan struct{})
		other.post(func() { f.leave(other); close(left) })
		<-left
	}
	after, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(after) })
	held, dialled, said := make(chan struct{}), make(chan struct{}), make(chan struct{})
	loop := n.loops.all[0]
	loop.post(func() {
		_ = loop.watch(after, unix.EPOLLIN|unix.EPOLLET&0xffffffff, taken(func() { <-said }), 0)
		close(held)
		<-dialled
	})
	<-held
	conn := hostDial(t, "tcp", p.HostAddr()) // the first event that waits for the loop: it dials the app
	_, _ = unix.Write(after, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	close(dialled)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_, werr := c.Write([]byte("hello"))
	if err := errors.Join(werr, c.(*net.TCPConn).CloseWrite()); err != nil {
		t.Fatal(err)
	}
	close(said)
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v; want all of it, and its end", got, err)
	}
	c.Close()
}

// taken is what a test does on a loop's thread at an event.
type taken func()

func (f taken) take(int, uint32) { f() }
