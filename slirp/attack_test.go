package slirp

import (
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
)

// TestAttackPretendingToBeLoopback is CVE-2021-20199 and its family: an app that trusts 127.0.0.1 must not take a
// client of the local network for it, nor may that client reach what is published on 127.0.0.1.
//
// Wall: clients keep their address, and the kernel drops foreign packets for 127.0.0.1.
// Proof: it succeeds beside a plain forwarder, and with the kernel's setting the other way.
func TestAttackPretendingToBeLoopback(t *testing.T) {
	inet := internet(t)
	n := newNetwork(t)
	app, e := newSandbox(t, n, "db")
	publishOn := func(t *testing.T, ip string, a net.Addr) *Published {
		return publish(t, n, e, config.Port{HostIP: netip.MustParseAddr(ip), App: uint16(portOf(a)), Count: 1, Protocol: "tcp"})[0]
	}
	ask := func(t *testing.T, addr string) (string, error) {
		c, err := inet.dial("tcp", addr)
		if err != nil {
			return "", err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		b := make([]byte, 100)
		k, err := c.Read(b)
		return string(b[:k]), err
	}
	t.Run("a client elsewhere is not loopback to the app", func(t *testing.T) {
		for _, listen := range []string{"0.0.0.0:0", "127.0.0.1:0", "[::1]:0"} {
			p := publishOn(t, "0.0.0.0", app.whoTCP(listen))
			seen, err := ask(t, at(hostV4, int(p.HostAddr().Port())))
			if err != nil {
				t.Fatal(err)
			}
			if from := netip.MustParseAddrPort(seen); from.Addr().Unmap().IsLoopback() {
				t.Errorf("to an app on %s, a client elsewhere is %s", listen, seen)
			}
		}
		// Behind a forwarder of the plain kind the attack succeeds, or it would prove nothing.
		l, err := net.Listen("tcp4", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go forwardPlainly(l, app, portOf(app.whoTCP("127.0.0.1:0")))
		seen, err := ask(t, at(hostV4, portOf(l.Addr())))
		if err != nil {
			t.Fatal(err)
		}
		if from := netip.MustParseAddrPort(seen); !from.Addr().IsLoopback() {
			t.Errorf("the attack fails without the wall, too: the client is %s", seen)
		}
	})
	t.Run("loopback's port by the host's address", func(t *testing.T) {
		p := publishOn(t, "127.0.0.1", app.whoTCP("0.0.0.0:0"))
		if seen, err := ask(t, at(hostV4, int(p.HostAddr().Port()))); err == nil {
			t.Errorf("it answers: %q", seen)
		}
		open := publishOn(t, "0.0.0.0", app.whoTCP("0.0.0.0:0"))
		if _, err := ask(t, at(hostV4, int(open.HostAddr().Port()))); err != nil {
			t.Errorf("the attack fails without the wall, too: %v", err)
		}
	})
	t.Run("loopback's port by a forged route", func(t *testing.T) {
		p := publishOn(t, "127.0.0.1", app.whoTCP("0.0.0.0:0"))
		reached := func(t *testing.T) bool {
			c, err := inet.dialTimeout(at("127.0.0.1", int(p.HostAddr().Port())), 2*time.Second)
			if err == nil {
				c.Close()
			}
			return err == nil
		}
		err := inet.do(func() error { return forgeLoopback(t, hostV4) })
		if err != nil {
			t.Fatal(err)
		}
		if reached(t) {
			t.Error("127.0.0.1 of the host is reached from elsewhere")
		}
		// It is the host's own kernel that drops such packets; whisk must not open that door (route_localnet), and
		// with the door open the attack succeeds, or it would prove nothing.
		old := sysctl(t, "net/ipv4/conf/all/route_localnet")
		if old != "0\n" {
			t.Errorf("net.ipv4.conf.all.route_localnet is %q on a host with published ports, want 0", old)
		}
		setSysctl(t, "net/ipv4/conf/all/route_localnet", "1")
		defer setSysctl(t, "net/ipv4/conf/all/route_localnet", "0")
		if !reached(t) {
			t.Error("the attack fails without the wall, too")
		}
	})
	if !t.Failed() {
		t.Log("attack pretending to be loopback: held; succeeds beside a plain forwarder, and with the kernel's setting the other way")
	}
}

// forwardPlainly joins each connection to one from the app's own loopback device, as many port drivers do.
func forwardPlainly(l net.Listener, app *namespace, port int) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := app.dial("tcp", at("127.0.0.1", port))
		if err != nil {
			client.Close()
			continue
		}
		go func() {
			defer client.Close()
			defer server.Close()
			_, _ = io.Copy(client, server)
		}()
	}
}

func (ns *namespace) dialTimeout(addr string, d time.Duration) (c net.Conn, err error) {
	err = ns.do(func() (err error) {
		c, err = net.DialTimeout("tcp", addr, d)
		return err
	})
	return c, err
}

// forgeLoopback makes the calling thread's namespace send what is for 127.0.0.1 to a gateway.
func forgeLoopback(t *testing.T, gateway string) error {
	setSysctl(t, "net/ipv4/conf/all/route_localnet", "1")
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	addrs, err := netlink.AddrList(lo, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for i := range addrs {
		if err := netlink.AddrDel(lo, &addrs[i]); err != nil {
			return err
		}
	}
	routes, err := netlink.RouteGet(net.ParseIP(gateway))
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{
		LinkIndex: routes[0].LinkIndex, Gw: net.ParseIP(gateway), Table: unix.RT_TABLE_MAIN,
		Dst: &net.IPNet{IP: net.IPv4(127, 0, 0, 1).To4(), Mask: net.CIDRMask(32, 32)},
	})
}

// sysctl reads a setting of the calling thread's network namespace.
func sysctl(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func setSysctl(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
		t.Error(err)
	}
}
