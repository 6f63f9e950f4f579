package slirp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTransparentListenerIsNobodys: the listener that apps' connections end at takes no port of the router's addresses from
// those that host_ports may name, and is not there for who asks for it.
func TestTransparentListenerIsNobodys(t *testing.T) {
	inet := internet(t)
	host := &namespace{t, mustHostNS(t)}
	n := newNetwork(t)
	app, e := newSandbox(t, n, "web")
	gw4, gw6 := n.Gateway()
	for i, remote := range []string{inetV4, inetV6} {
		roundTrip(t, app.mustDial("tcp", inet.echoTCP("tcp", at(remote, 0)).String()), []byte("the listener is there"))
		port := portOf(n.transparent.listeners[i].Addr())
		gw, src := gw4, e.IPv4()
		if i == 1 {
			gw, src = gw6, e.IPv6()
		}
		t.Run(fmt.Sprintf("asked for, %s", remote), func(t *testing.T) {
			for _, a := range []string{gw.String(), remote} {
				if c, err := app.dial("tcp", at(a, port)); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("port %d of %s: %v, want it refused", port, a, err)
					if err == nil {
						c.Close()
					}
				}
			}
			// What the listener's own address is to others: a packet that no kernel lets out by itself.
			own := netip.MustParseAddrPort(n.transparent.listeners[i].Addr().String())
			app.sendRaw(synPacket(netip.AddrPortFrom(src, 4000), own), gw)
			if n.gate.tcp.has(flow{protoTCP, netip.AddrPortFrom(src, 4000), own}) {
				t.Errorf("%s is dialled", own)
			}
		})
		t.Run(fmt.Sprintf("named by host_ports, %s", remote), func(t *testing.T) {
			service := host.listen("tcp", at("127.0.0.1", port))
			serveEchoTCP(service)
			ns := newNamespace(t)
			other, err := n.Attach(context.Background(), AttachOptions{NetNS: ns.fd, Name: fmt.Sprintf("other%d", i), HostPorts: []uint16{uint16(port)}})
			if err != nil {
				t.Fatalf("opening host port %d: %v", port, err)
			}
			t.Cleanup(func() { other.Close() })
			roundTrip(t, ns.mustDial("tcp", at(gw, port)), []byte("the host's service"))
			roundTrip(t, ns.mustDial("tcp", inet.echoTCP("tcp", at(remote, port)).String()), []byte("the same port elsewhere"))
			roundTrip(t, app.mustDial("tcp", inet.echoTCP("tcp", at(remote, 0)).String()), []byte("and what was there before"))
		})
	}
}
