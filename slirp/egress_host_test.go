package slirp

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestHostPorts(t *testing.T) {
	_, conf := serveZone(t)
	host := &namespace{t, mustHostNS(t)}
	port := portOf(host.echoTCP("tcp", "127.0.0.1:0"))
	host.echoUDP("udp", at("127.0.0.1", port))
	six := portOf(host.echoTCP("tcp", "[::1]:0"))
	silent := 9
	var flows flowsOf
	n := newNetwork(t, func(c *Config) { c.ResolvConf, c.OnFlow = conf, flows.take })
	attach := func(name, egress string, ports ...uint16) (*namespace, *Endpoint) {
		ns := newNamespace(t)
		e, err := n.Attach(context.Background(), AttachOptions{NetNS: ns.fd, Name: name, Egress: egress, HostPorts: ports})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		return ns, e
	}
	web, e := attach("web", "none", uint16(port), uint16(six), uint16(silent))
	other, _ := attach("other", "all")
	shared, _ := attach("shared", "all", uint16(port))
	gw4, gw6 := n.Gateway()
	for _, gw := range []string{gw4.String(), gw6.String()} {
		roundTrip(t, web.mustDial("tcp", at(gw, port)), []byte("hello"))
		roundTrip(t, web.mustDial("tcp", at(gw, six)), []byte("hello"))
		roundTrip(t, web.mustDial("udp", at(gw, port)), []byte("hello"))
		roundTrip(t, shared.mustDial("tcp", at(gw, port)), []byte("hello"))
		for _, to := range []int{port, six, silent} {
			if c, err := other.dial("tcp", at(gw, to)); err == nil {
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				if _, err = c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("a sandbox without host ports reads %v from port %d", err, to)
				}
				c.Close()
			}
		}
		if c, err := web.dial("tcp", at(gw, silent)); err == nil {
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err = c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("a host port that nobody listens on: %v", err)
			}
			c.Close()
		}
		if _, err := web.dial("tcp", at(gw, port+1)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("another port of the host's: %v", err)
		}
		u := other.mustDial("udp", at(gw, port))
		_, _ = u.Write([]byte("x"))
		if m, err := u.Read(make([]byte, 1)); !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) {
			t.Errorf("a sandbox without host ports got %d bytes over UDP, %v; want it prohibited", m, err)
		}
	}

	// A sandbox that leaves ends its connections, and ports that nobody uses are closed.
	c := web.mustDial("tcp", at(gw4, six))
	roundTrip(t, c, []byte("hello"))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	n.hostMu.Lock()
	left := len(n.hostPorts)
	n.hostMu.Unlock()
	if left != 1 {
		t.Errorf("%d host ports are open, want the one that is shared", left)
	}
	roundTrip(t, shared.mustDial("tcp", at(gw4, port)), []byte("still there"))

	// All of it is in the log.
	for _, gw := range []string{gw4.String(), gw6.String()} {
		for _, want := range []Flow{
			{App: "web", Protocol: "tcp", To: netip.MustParseAddrPort(at(gw, six)), Sent: 5, Received: 5},
			{App: "web", Protocol: "udp", To: netip.MustParseAddrPort(at(gw, port)), Sent: 5, Received: 5},
			{App: "web", Protocol: "tcp", To: netip.MustParseAddrPort(at(gw, silent)), Why: "connection refused"},
			{App: "other", Protocol: "tcp", To: netip.MustParseAddrPort(at(gw, port)), Denied: true, Why: noHostPort},
			{App: "other", Protocol: "udp", To: netip.MustParseAddrPort(at(gw, port)), Denied: true, Why: noHostPort},
		} {
			want.Name, want.Count = HostName, 1
			flows.awaitLike(t, want)
		}
	}

	ns := newNamespace(t)
	if _, err := n.Attach(context.Background(), AttachOptions{NetNS: ns.fd, Name: "dns", HostPorts: []uint16{uint16(port), 53}}); err == nil || !strings.Contains(err.Error(), "host port 53") {
		t.Errorf("the name server's own port: %v", err)
	}
	if _, err := n.Attach(context.Background(), AttachOptions{NetNS: ns.fd, Name: "dns"}); err != nil {
		t.Errorf("its name and address are not free again: %v", err)
	}
}
