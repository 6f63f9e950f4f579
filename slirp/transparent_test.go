package slirp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
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

// TestHostPortThatTheRouterSpeaksFrom: the router speaks to apps for clients on loopback, from ports that the kernel picks. Such a
// number may be asked for by host_ports meanwhile.
func TestHostPortThatTheRouterSpeaksFrom(t *testing.T) {
	host := &namespace{t, mustHostNS(t)}
	n := newNetwork(t)
	app, e := newSandbox(t, n, "web")
	gw4, gw6 := n.Gateway()
	for _, protocol := range []string{"tcp", "udp"} {
		for i, gw := range []netip.Addr{gw4, gw6} {
			t.Run(fmt.Sprintf("%s, %s", protocol, gw), func(t *testing.T) {
				any, loopback := "0.0.0.0:0", "127.0.0.1"
				if i == 1 {
					any, loopback = "[::]:0", "::1"
				}
				serve := app.echoTCP
				if protocol == "udp" {
					serve = app.echoUDP
				}
				port := config.Port{HostIP: netip.MustParseAddr(loopback), App: uint16(portOf(serve(protocol, any))), Count: 1, Protocol: protocol}
				var c net.Conn
				var from netip.AddrPort
				for try := 0; ; try++ {
					before := n.spokenFrom(t, protocol, gw)
					c = host.mustDial(protocol, publish(t, n, e, port)[0].HostAddr().String())
					roundTrip(t, c, []byte("before"))
					after := slices.DeleteFunc(n.spokenFrom(t, protocol, gw), func(a netip.AddrPort) bool { return slices.Contains(before, a) })
					if len(after) != 1 {
						t.Fatalf("the router speaks from %v, and before from %v", after, before)
					}
					from = after[0]
					err := host.do(func() error {
						at := at("127.0.0.1", int(from.Port()))
						if protocol == "udp" {
							l, err := net.ListenPacket(protocol, at)
							if err == nil {
								t.Cleanup(func() { l.Close() })
								serveEchoUDP(l)
							}
							return err
						}
						l, err := net.Listen(protocol, at)
						if err == nil {
							t.Cleanup(func() { l.Close() })
							serveEchoTCP(l)
						}
						return err
					})
					if err == nil {
						break
					}
					if try == 10 {
						t.Fatal(err) // else the number is in use by chance
					}
				}
				ns := newNamespace(t)
				other, err := n.Attach(context.Background(), AttachOptions{NetNS: ns.fd, Name: fmt.Sprintf("%s%d", protocol, i), HostPorts: []uint16{from.Port()}})
				if err != nil {
					t.Fatalf("opening host port %d: %v", from.Port(), err)
				}
				t.Cleanup(func() { other.Close() })
				roundTrip(t, ns.mustDial(protocol, at(gw, int(from.Port()))), []byte("the host's"))
				roundTrip(t, c, []byte("after"))
			})
		}
	}
}

// spokenFrom are the ports of the router's that are connected with an app.
func (n *Network) spokenFrom(t *testing.T, protocol string, gw netip.Addr) (out []netip.AddrPort) {
	t.Helper()
	family := uint8(unix.AF_INET6)
	if gw.Is4() {
		family = unix.AF_INET
	}
	err := n.thread.do(func() error {
		if protocol == "udp" {
			all, err := netlink.SocketDiagUDP(family)
			for _, s := range all {
				out = append(out, ownEnd(s.ID, gw)...)
			}
			return err
		}
		all, err := netlink.SocketDiagTCP(family)
		for _, s := range all {
			out = append(out, ownEnd(s.ID, gw)...)
		}
		return err
	})
	if err != nil {
		t.Fatalf("listing the router's sockets: %v", err)
	}
	return out
}

// ownEnd is the near end of a socket that is connected and has this address.
func ownEnd(id netlink.SocketID, gw netip.Addr) []netip.AddrPort {
	a, _ := netip.AddrFromSlice(id.Source)
	if a = a.Unmap(); a != gw || id.DestinationPort == 0 {
		return nil
	}
	return []netip.AddrPort{netip.AddrPortFrom(a, id.SourcePort)}
}
