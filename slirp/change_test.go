package slirp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// provider is another way from the test's host into a world that has the same remote address: what a change of Wi-Fi is.
// The host reaches it over a link of its own; remote is the address that both worlds have, so that only the route says
// which one answers.
type provider struct {
	ns     *namespace
	link   string // the host's end
	gw     string
	remote string
}

func newProvider(t *testing.T, link, hostIP, gw, remote string) *provider {
	t.Helper()
	internet(t)
	p := &provider{newNamespace(t), link, gw, remote}
	err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: link}, PeerName: "eth0", PeerNamespace: netlink.NsFd(p.ns.fd)})
	if err != nil {
		t.Fatalf("making link %s: %v", link, err)
	}
	t.Cleanup(func() {
		if l, err := netlink.LinkByName(link); err == nil {
			_ = netlink.LinkDel(l)
		}
	})
	bits := map[bool]string{false: "/24", true: "/64"}[isSix(gw)]
	err = errors.Join(setUp(link, hostIP+bits), p.ns.do(func() error {
		return errors.Join(setUp("lo", remote+map[bool]string{false: "/32", true: "/128"}[isSix(remote)]), setUp("eth0", gw+bits))
	}))
	if err != nil {
		t.Fatalf("addresses of link %s: %v", link, err)
	}
	return p
}

func isSix(ip string) bool { return net.ParseIP(ip).To4() == nil }

// serve answers on the remote address with the provider's name, over TCP, UDP and DNS.
func (p *provider) serve(t *testing.T, name, answer string) {
	t.Helper()
	l := p.ns.listen("tcp", at(p.remote, 80))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name)
			c.Close()
		}
	}()
	u := p.ns.listenPacket("udp", at(p.remote, 80))
	go func() {
		b := make([]byte, 100)
		for {
			_, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = u.WriteTo([]byte(name), from)
		}
	}()
	s := &dns.Server{PacketConn: p.ns.listenPacket("udp", at(p.gw, 53)), Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		if rr, err := dns.NewRR(q.Question[0].Name + " 60 IN A " + answer); err == nil {
			m.Answer = append(m.Answer, rr)
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = s.ActivateAndServe() }()
}

// becomeDefault is what a network manager does: the default route first, then resolv.conf, replaced by renaming.
func (p *provider) becomeDefault(t *testing.T, conf string) {
	t.Helper()
	if err := netlink.RouteReplace(&netlink.Route{Gw: net.ParseIP(p.gw)}); err != nil {
		t.Fatalf("changing the default route to %s: %v", p.gw, err)
	}
	next := conf + ".new"
	if err := os.WriteFile(next, []byte("nameserver "+p.gw+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, conf); err != nil {
		t.Fatal(err)
	}
}

// TestHostChangesItsNetwork moves the host from one provider to another under a running sandbox, and back.
func TestHostChangesItsNetwork(t *testing.T) {
	internet(t)
	for _, c := range []struct {
		family, remote string
		old            string // default route to be restored
		hosts, gws     [2]string
	}{
		{"IPv4", "8.8.4.4", inetV4, [2]string{"100.66.1.2", "100.66.2.2"}, [2]string{"100.66.1.1", "100.66.2.1"}},
		{"IPv6", "2001:4860::1", inetV6, [2]string{"2001:db8:1::2", "2001:db8:2::2"}, [2]string{"2001:db8:1::1", "2001:db8:2::1"}},
	} {
		for _, carrier := range []string{"fast path", "netstack"} {
			t.Run(c.family+" over "+carrier, func(t *testing.T) {
				t.Cleanup(func() {
					if err := netlink.RouteReplace(&netlink.Route{Gw: net.ParseIP(c.old)}); err != nil {
						t.Errorf("restoring the default route: %v", err)
					}
				})
				conf := filepath.Join(t.TempDir(), "resolv.conf")
				var wifi [2]*provider
				for i, name := range []string{"office", "cafe"} {
					wifi[i] = newProvider(t, name, c.hosts[i], c.gws[i], c.remote)
					wifi[i].serve(t, name, fmt.Sprintf("192.0.2.%d", 10+i))
				}
				n := newNetwork(t, func(k *Config) { k.ResolvConf = conf; k.NoFastPath = carrier == "netstack" })
				app, _ := newSandbox(t, n, "web")
				for round, i := range []int{0, 1, 0} {
					wifi[i].becomeDefault(t, conf)
					name := wifi[i].link
					c1 := app.mustDial("tcp", at(c.remote, 80))
					if b, err := io.ReadAll(c1); err != nil || string(b) != name {
						t.Errorf("round %d: the next connection reached %q, %v; want %q", round, b, err, name)
					}
					u := app.mustDial("udp", at(c.remote, 80))
					_, _ = u.Write([]byte("x"))
					b := make([]byte, 100)
					if m, err := u.Read(b); err != nil || string(b[:m]) != name {
						t.Errorf("round %d: the next datagram reached %q, %v; want %q", round, b[:m], err, name)
					}
					if got, want := said(ask(t, app, n, "udp4", "example.org", dns.TypeA)), fmt.Sprintf("NOERROR, A 192.0.2.%d", 10+i); got != want {
						t.Errorf("round %d: the next name: got %q, want %q", round, got, want)
					}
				}
				// No network at all is said at once, and does not outlast itself.
				wifi[0].drop(t)
				start := time.Now()
				if _, err := app.dial("tcp", at(c.remote, 80)); !errors.Is(err, unix.ENETUNREACH) {
					t.Errorf("without a default route: got %v after %v, want network unreachable", err, time.Since(start))
				}
				wifi[1].becomeDefault(t, conf)
				if b, err := io.ReadAll(app.mustDial("tcp", at(c.remote, 80))); err != nil || string(b) != "cafe" {
					t.Errorf("with a network again: reached %q, %v", b, err)
				}
			})
		}
	}
}

// drop takes the default route of the provider's family away.
func (p *provider) drop(t *testing.T) {
	t.Helper()
	if err := netlink.RouteDel(&netlink.Route{Gw: net.ParseIP(p.gw)}); err != nil {
		t.Fatalf("dropping the default route: %v", err)
	}
}
