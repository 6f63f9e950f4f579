package slirp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The test's host has these addresses, and the internet beyond it those.
const (
	hostV4, hostV6 = "198.51.100.1", "2001:db8::1"
	inetV4, inetV6 = "198.51.100.2", "2001:db8::2"
)

// namespace is a network namespace of a test's.
type namespace struct {
	tb testing.TB
	fd int
}

func newNamespace(tb testing.TB) *namespace {
	tb.Helper()
	ns := newNamespaceFD(tb)
	tb.Cleanup(func() { unix.Close(ns.fd) })
	return ns
}

// patiently tries again while the kernel has yet to take namespaces down that are closed already.
func patiently(f func() error) error {
	end := time.Now().Add(20 * time.Second)
	for {
		err := f()
		if !errors.Is(err, unix.ENOSPC) || time.Now().After(end) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// newNamespaceFD makes a namespace whose descriptor the test closes.
func newNamespaceFD(tb testing.TB) *namespace {
	tb.Helper()
	result := make(chan error, 1)
	ns := &namespace{tb: tb}
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		err := patiently(func() error { return unix.Unshare(unix.CLONE_NEWNET) })
		if err == nil {
			ns.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		result <- err
	}()
	if err := <-result; err != nil {
		tb.Fatalf("making a namespace: %v", err)
	}
	return ns
}

// do runs f on a thread in the namespace.
func (ns *namespace) do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(ns.fd, unix.CLONE_NEWNET); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

func (ns *namespace) dial(network, addr string) (c net.Conn, err error) {
	err = ns.do(func() error {
		d := net.Dialer{Timeout: 5 * time.Second, FallbackDelay: -1} // on this thread, not another
		c, err = d.Dial(network, addr)
		return err
	})
	return c, err
}

func (ns *namespace) mustDial(network, addr string) net.Conn {
	ns.tb.Helper()
	c, err := ns.dial(network, addr)
	if err != nil {
		ns.tb.Fatalf("dialling %s %s: %v", network, addr, err)
	}
	ns.tb.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	return c
}

func (ns *namespace) listen(network, addr string) net.Listener {
	ns.tb.Helper()
	var l net.Listener
	err := ns.do(func() (err error) {
		l, err = net.Listen(network, addr)
		return err
	})
	if err != nil {
		ns.tb.Fatalf("listening on %s: %v", addr, err)
	}
	ns.tb.Cleanup(func() { l.Close() })
	return l
}

func (ns *namespace) listenPacket(network, addr string) net.PacketConn {
	ns.tb.Helper()
	var c net.PacketConn
	err := ns.do(func() (err error) {
		c, err = net.ListenPacket(network, addr)
		return err
	})
	if err != nil {
		ns.tb.Fatalf("listening on %s: %v", addr, err)
	}
	ns.tb.Cleanup(func() { c.Close() })
	return c
}

// echoTCP serves an echo that passes the end of the stream back.
func (ns *namespace) echoTCP(network, addr string) net.Addr {
	l := ns.listen(network, addr)
	serveEchoTCP(l)
	return l.Addr()
}

// listenRaw serves an echo that the test closes.
func (ns *namespace) listenRaw(network, addr string) (l net.Listener) {
	ns.tb.Helper()
	if err := ns.do(func() (err error) { l, err = net.Listen(network, addr); return err }); err != nil {
		ns.tb.Fatal(err)
	}
	serveEchoTCP(l)
	return l
}

func (ns *namespace) listenPacketRaw(network, addr string) (c net.PacketConn) {
	ns.tb.Helper()
	if err := ns.do(func() (err error) { c, err = net.ListenPacket(network, addr); return err }); err != nil {
		ns.tb.Fatal(err)
	}
	serveEchoUDP(c)
	return c
}

func serveEchoTCP(l net.Listener) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

func (ns *namespace) echoUDP(network, addr string) net.Addr {
	c := ns.listenPacket(network, addr)
	serveEchoUDP(c)
	return c.LocalAddr()
}

func serveEchoUDP(c net.PacketConn) {
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:n], from)
		}
	}()
}

// world is the internet that the test's host reaches. The host's namespace is the process's own.
var world = sync.OnceValues(func() (int, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return 0, err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return 0, err
	}
	if err := skipDAD(); err != nil {
		return 0, err
	}
	result := make(chan error, 1)
	var fd int
	go func() {
		runtime.LockOSThread()
		host, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			result <- err
			return
		}
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- err
			return
		}
		fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			result <- err
			return
		}
		if err = skipDAD(); err != nil {
			result <- err
			return
		}
		err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "inet", MTU: 65535}, PeerName: "wan", PeerNamespace: netlink.NsFd(host)})
		if err == nil {
			err = setUp("lo")
		}
		if err == nil {
			err = setUp("inet", inetV4+"/24", inetV6+"/64")
		}
		result <- err
	}()
	if err := <-result; err != nil {
		return 0, err
	}
	if err := setUp("wan", hostV4+"/24", hostV6+"/64"); err != nil {
		return 0, err
	}
	for _, gw := range []string{inetV4, inetV6} {
		if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gw)}); err != nil {
			return 0, fmt.Errorf("default route via %s: %w", gw, err)
		}
	}
	for _, a := range []string{inetV4, inetV6} { // find the neighbours before a test looks at the clock
		if c, err := net.DialTimeout("tcp", at(a, 9), 5*time.Second); err == nil {
			c.Close()
		}
	}
	for dst, kind := range map[string]int{"203.0.113.0/25": unix.RTN_PROHIBIT, "203.0.113.128/25": unix.RTN_UNREACHABLE, "2001:db8:bad::/48": unix.RTN_UNREACHABLE} {
		_, to, err := net.ParseCIDR(dst)
		if err == nil {
			err = netlink.RouteAdd(&netlink.Route{Dst: to, Type: kind})
		}
		if err != nil {
			return 0, fmt.Errorf("closing %s: %w", dst, err)
		}
	}
	if os.Getenv(noPingEnv) != "" {
		return fd, nil
	}
	return fd, os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0)
})

// skipDAD has links that are made in the calling thread's namespace use their link-local addresses at once: without one,
// a router asks for no neighbour (RFC 4861).
func skipDAD() error {
	return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
}

func setUp(name string, addrs ...string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(l, addr); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	return netlink.LinkSetUp(l)
}

// internet returns the namespace beyond the host.
func internet(tb testing.TB) *namespace {
	tb.Helper()
	fd, err := world()
	if err != nil {
		tb.Fatalf("making the test's internet: %v", err)
	}
	return &namespace{tb, fd}
}

// testLog writes a network's log to the test's, but not after the test's end.
func testLog(tb testing.TB) *slog.Logger {
	var mu sync.Mutex
	var b bytes.Buffer
	tb.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		if tb.Failed() {
			tb.Log("log of the network:\n" + b.String())
		}
	})
	return slog.New(slog.NewTextHandler(lockedWriter{&mu, &b}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func newNetwork(tb testing.TB, change ...func(*Config)) *Network {
	tb.Helper()
	internet(tb)
	c := Config{Name: "shop", Log: testLog(tb), ResolvConf: "/nonexistent"}
	c.IPv4, c.IPv6 = ChoosePrefixes(c.Name, nil)
	for _, f := range change {
		f(&c)
	}
	n, err := New(context.Background(), c)
	if err != nil {
		tb.Fatalf("making a network: %v", err)
	}
	tb.Cleanup(func() {
		if err := n.Close(); err != nil {
			tb.Errorf("closing the network: %v", err)
		}
	})
	return n
}

// newSandbox makes a namespace and joins it to a network.
func newSandbox(tb testing.TB, n *Network, name string, aliases ...string) (*namespace, *Endpoint) {
	tb.Helper()
	ns := newNamespace(tb)
	e, err := n.Attach(context.Background(), AttachOptions{NetNS: ns.fd, Name: name, Aliases: aliases})
	if err != nil {
		tb.Fatalf("attaching %q: %v", name, err)
	}
	tb.Cleanup(func() {
		if err := e.Close(); err != nil {
			tb.Errorf("detaching %q: %v", name, err)
		}
	})
	return ns, e
}

// at puts a port behind an address.
func at(a any, port int) string {
	s := fmt.Sprint(a)
	if ap, err := netip.ParseAddrPort(s); err == nil {
		s = ap.Addr().String()
	}
	return net.JoinHostPort(s, fmt.Sprint(port))
}

func portOf(a net.Addr) int {
	return int(netip.MustParseAddrPort(a.String()).Port())
}
