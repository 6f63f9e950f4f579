package slirp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
)

func TestHeldPortsAreRefusedUntilTheyArePublished(t *testing.T) {
	n := newNetwork(t)
	app, e := newSandbox(t, n, "web")
	for _, host := range []string{"127.0.0.1", "::1", "0.0.0.0", "::", hostV4} {
		for _, protocol := range []string{"tcp", "udp"} {
			t.Run(host+" "+protocol, func(t *testing.T) {
				const port = 7
				for _, a := range []any{e.IPv4(), e.IPv6()} {
					if protocol == "tcp" {
						defer app.listenRaw("tcp", at(a, port)).Close()
					} else {
						defer app.listenPacketRaw("udp", at(a, port)).Close()
					}
				}
				ip := netip.MustParseAddr(host)
				h, err := HoldPorts(config.Port{HostIP: ip, App: port, Protocol: protocol})
				if err != nil {
					t.Fatal(err)
				}
				held := h.Ports()
				if len(held) != 1 || held[0].Host.Port() == 0 || held[0].Host.Addr() != ip || held[0].App != port || held[0].Protocol != protocol {
					t.Fatalf("held: %+v", held)
				}
				to := held[0].Host
				if ip.IsUnspecified() {
					to = netip.AddrPortFrom(map[bool]netip.Addr{false: netip.MustParseAddr("127.0.0.1"), true: netip.IPv6Loopback()}[ip.Is6()], to.Port())
				}
				if err := echoes(protocol, to.String()); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("a client that comes early: %v, want it refused", err)
				}
				again := config.Port{HostIP: ip, Host: to.Port(), App: port, Protocol: protocol}
				if other, err := HoldPorts(again); !errors.Is(err, ErrPortInUse) {
					t.Errorf("holding it again: %v, want it in use", err)
					if err == nil {
						other.Close()
					}
				}
				ports, err := n.PublishHeld(context.Background(), e, h)
				if err != nil {
					t.Fatal(err)
				}
				if len(ports) != 1 || ports[0].HostAddr() != held[0].Host {
					t.Errorf("published at %v, want %v", ports[0].HostAddr(), held[0].Host)
				}
				if err := echoes(protocol, to.String()); err != nil {
					t.Errorf("a client that comes later: %v", err)
				}
				if err := ports[0].Close(); err != nil {
					t.Error(err)
				}
				// It is free again.
				h, err = HoldPorts(again)
				if err != nil {
					t.Fatalf("holding it once it is closed: %v", err)
				}
				h.Close()
			})
		}
	}
}

// echoes sends a byte to an echo and waits for it.
func echoes(protocol, to string) error {
	c, err := net.DialTimeout(protocol, to, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

func TestHoldingPortsFailsAsPublishingDoes(t *testing.T) {
	n := newNetwork(t)
	_, e := newSandbox(t, n, "web")
	l := aboveFreePort(t)
	defer l.Close()
	taken := uint16(portOf(l.Addr()))
	for _, c := range []struct {
		name string
		port config.Port
		want error
	}{
		{"in use", config.Port{HostIP: netip.MustParseAddr("127.0.0.1"), Host: taken, App: 80}, ErrPortInUse},
		{"not local", config.Port{HostIP: netip.MustParseAddr("192.0.2.1"), Host: taken, App: 80}, ErrNotLocal},
		{"out of range", config.Port{Host: 65535, Count: 2, App: 80}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, herr := HoldPorts(c.port)
			if herr == nil {
				h.Close()
				t.Fatal("it is held")
			}
			_, perr := n.Publish(context.Background(), e, c.port)
			if fmt.Sprint(herr) != fmt.Sprint(perr) {
				t.Errorf("holding: %v\npublishing: %v", herr, perr)
			}
			if c.want != nil && !errors.Is(herr, c.want) {
				t.Errorf("got %v, want %v", herr, c.want)
			}
		})
	}
	// Of a range all or none.
	h, err := HoldPorts(config.Port{HostIP: netip.MustParseAddr("127.0.0.1"), Host: taken - 1, App: 80, Count: 2})
	if err == nil {
		h.Close()
		t.Fatal("a range with a taken port is held")
	}
	free, err := net.Listen("tcp", at("127.0.0.1", int(taken)-1))
	if err != nil {
		t.Fatalf("the range's first port: %v", err)
	}
	free.Close()
}

// aboveFreePort listens on a port whose lower neighbour is nobody's.
func aboveFreePort(t *testing.T) net.Listener {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		below, err := net.Listen("tcp", at("127.0.0.1", portOf(l.Addr())-1))
		if err == nil {
			below.Close()
			return l
		}
		l.Close()
	}
}
