package slirp

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
)

func descriptors(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			out = append(out, to)
		}
	}
	return out
}

// settled waits until count is at most want, since closed sockets' goroutines end a moment later.
func settled(t *testing.T, what string, want int, count func() int, show func() string) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for count() > want {
		if time.Now().After(end) {
			t.Errorf("%d %s are left, %d were there before:\n%s", count(), what, want, show())
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func goroutineDump() string {
	var b bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&b, 1)
	return b.String()
}

// use opens a bit of everything and leaves it open.
func use(t *testing.T, app *namespace, n *Network, e *Endpoint, remoteTCP, remoteUDP string) {
	t.Helper()
	c, err := app.dial("tcp", remoteTCP)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	roundTrip(t, c, []byte("x"))
	u, err := app.dial("udp", remoteUDP)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	roundTrip(t, u, []byte("x"))
	if _, err := ping(t, app, inetV4, 1, nil); err != nil {
		t.Fatal(err)
	}
	for _, protocol := range []string{"tcp", "udp"} {
		p, err := n.Publish(context.Background(), e, config.Port{App: 7, Count: 2, Protocol: protocol})
		if err != nil {
			t.Fatal(err)
		}
		d := hostDial(t, protocol, p[0].HostAddr())
		if protocol == "udp" {
			_, _ = d.Write([]byte("x"))
		}
		roundTrip(t, d, []byte("x"))
		d.Close()
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	inet := internet(t)
	remoteTCP := inet.echoTCP("tcp", at(inetV4, 0)).String()
	remoteUDP := inet.echoUDP("udp", at(inetV4, 0)).String()
	n := newNetwork(t)
	cycle := func() {
		ns := newNamespaceFD(t)
		defer unix.Close(ns.fd)
		e, err := n.Attach(context.Background(), AttachOptions{NetNS: ns.fd, Name: "web"})
		if err != nil {
			t.Fatal(err)
		}
		tcp, udp := ns.listenRaw("tcp", ":7"), ns.listenPacketRaw("udp", ":7")
		defer tcp.Close()
		defer udp.Close()
		use(t, ns, n, e, remoteTCP, remoteUDP)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cycle() // what is made once: the stack, pools
	fds, goroutines := len(descriptors(t)), runtime.NumGoroutine()
	for range 100 {
		cycle()
	}
	settled(t, "descriptors", fds, func() int { return len(descriptors(t)) }, func() string { return strings.Join(descriptors(t), "\n") })
	settled(t, "goroutines", goroutines, runtime.NumGoroutine, goroutineDump)
	var links []netlink.Link
	if err := n.thread.do(func() (err error) { links, err = netlink.LinkList(); return err }); err != nil {
		t.Fatal(err)
	}
	if len(links) != 3 {
		t.Errorf("router has %d links, want lo, up and far: %v", len(links), links)
	}
	if len(n.endpoints) != 0 || len(n.names.byName) != 0 || len(n.names.byAddr) != 0 {
		t.Errorf("names or addresses are left: %v %v", n.endpoints, n.names.byName)
	}
	n.gate.tcp.mu.Lock()
	defer n.gate.tcp.mu.Unlock()
	if len(n.gate.tcp.flows) != 0 || n.gate.tcp.dials != 0 || len(n.gate.tcp.bySource) != 0 {
		t.Errorf("flows are left: %d, %d dials, %v", len(n.gate.tcp.flows), n.gate.tcp.dials, n.gate.tcp.bySource)
	}
}

func TestNetworksEndWhole(t *testing.T) {
	inet := internet(t)
	remoteTCP := inet.echoTCP("tcp", at(inetV4, 0)).String()
	remoteUDP := inet.echoUDP("udp", at(inetV4, 0)).String()
	cycle := func() {
		c := Config{Name: "shop"}
		c.IPv4, c.IPv6 = ChoosePrefixes(c.Name, nil)
		var n *Network
		err := patiently(func() (err error) { n, err = New(context.Background(), c); return err })
		if err != nil {
			t.Fatal(err)
		}
		ns := newNamespaceFD(t)
		defer unix.Close(ns.fd)
		e, err := n.Attach(context.Background(), AttachOptions{NetNS: ns.fd, Name: "web"})
		if err != nil {
			t.Fatal(err)
		}
		tcp, udp := ns.listenRaw("tcp", ":7"), ns.listenPacketRaw("udp", ":7")
		defer tcp.Close()
		defer udp.Close()
		use(t, ns, n, e, remoteTCP, remoteUDP)
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Errorf("detaching after the network has gone: %v", err)
		}
		if _, err := n.Attach(context.Background(), AttachOptions{NetNS: ns.fd, Name: "late"}); err == nil {
			t.Error("attached to a closed network")
		}
	}
	cycle()
	fds, goroutines := len(descriptors(t)), runtime.NumGoroutine()
	// The kernel says how many namespaces there are by refusing one too many: a router namespace that outlives its
	// network would make the last rounds fail.
	if err := os.WriteFile("/proc/sys/user/max_net_namespaces", []byte("20"), 0); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile("/proc/sys/user/max_net_namespaces", []byte("100000"), 0); err != nil {
			t.Error(err)
		}
	}()
	for range 30 {
		cycle()
	}
	settled(t, "descriptors", fds, func() int { return len(descriptors(t)) }, func() string { return strings.Join(descriptors(t), "\n") })
	settled(t, "goroutines", goroutines, runtime.NumGoroutine, goroutineDump)
}

func TestAddressesAndNames(t *testing.T) {
	n := newNetwork(t)
	_, web := newSandbox(t, n, "web")
	if got, want := web.IPv4(), n.plan.gw4.Next(); got != want {
		t.Errorf("first address is %s, want %s", got, want)
	}
	if got, want := web.IPv6(), n.plan.gw6.Next(); got != want {
		t.Errorf("first IPv6 address is %s, want %s", got, want)
	}
	for _, c := range []struct {
		name string
		a    AttachOptions
		want string
	}{
		{"name taken", AttachOptions{Name: "WEB"}, "is taken"},
		{"address taken", AttachOptions{Name: "a", IPv4: web.IPv4()}, `belongs to "web"`},
		{"the gateway's address", AttachOptions{Name: "a", IPv4: n.plan.gw4}, "not one for sandboxes"},
		{"address elsewhere", AttachOptions{Name: "a", IPv4: n.plan.gw4.Prev().Prev()}, "not one for sandboxes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.a.NetNS = newNamespace(t).fd
			if _, err := n.Attach(context.Background(), c.a); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	wish := n.plan.v4.Addr()
	for range 77 {
		wish = wish.Next()
	}
	e, err := n.Attach(context.Background(), AttachOptions{NetNS: newNamespace(t).fd, Name: "db", IPv4: wish})
	if err != nil || e.IPv4() != wish || !strings.HasSuffix(e.IPv6().String(), fmt.Sprintf("::%x", 77)) {
		t.Errorf("wished for %s: got %v, %v", wish, e, err)
	}
}
