package slirp

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// hostSpellings are the addresses that the host answers on, with the ways to write them that an app may try. 127.1 is
// 127.0.0.1 for programs that read addresses with inet_aton(3); testdata/scripts/egress.txtar has one.
var hostSpellings = []string{"127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", hostV4, hostV6, "::ffff:" + hostV4, "198.51.100.255"}

// TestEgressNeverReachesTheHost goes for the host's addresses and the cloud's, however they are spelled, in ways that a
// sandbox has: its sockets, and packets of its own making, which are given to the gate where a kernel between would drop them.
func TestEgressNeverReachesTheHost(t *testing.T) {
	_, conf := serveZone(t)
	inet := internet(t)
	host := &namespace{t, mustHostNS(t)}
	port := portOf(host.echoTCP("tcp", "[::]:0"))
	heard := host.listenPacket("udp", at("::", port))
	clouds := []string{"169.254.169.254", azureV4, metadataV6}
	for _, a := range clouds {
		inet.echoTCP("tcp", at(a, port))
	}
	// Without a wall between, all of them answer.
	for _, a := range append(slices.Clone(hostSpellings), clouds...) {
		if a == "198.51.100.255" {
			continue // the broadcast address
		}
		roundTrip(t, host.mustDial("tcp", at(a, port)), []byte("control"))
	}
	for _, slow := range []bool{false, true} {
		for _, egress := range []string{"all", "internet", "none", "allowed.test", "0.0.0.0/0,::/0", "rebind.test,rebind6.test"} {
			t.Run(fmt.Sprintf("%s, slow %v", egress, slow), func(t *testing.T) {
				app, n, log := restricted(t, egress, conf, slow)
				e := n.names.byName["app"][0]
				_ = ask(t, app, n, "udp4", "rebind.test", dns.TypeA)
				_ = ask(t, app, n, "udp4", "rebind6.test", dns.TypeAAAA)
				for _, a := range append(slices.Clone(hostSpellings), clouds...) {
					c, err := app.dial("tcp", at(a, port))
					if err == nil {
						c.Close()
						t.Errorf("reached the host or metadata at %s", a)
					}
				}
				for _, a := range append([]string{hostV4, hostV6}, clouds...) {
					refused(t, app, log, at(a, port), nil, a, "denied")
					prohibitedUDP(t, app, log, at(a, port), a, "denied")
				}
				for _, s := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "::ffff:0.0.0.0", hostV4, hostV6, "::ffff:" + hostV4, "198.51.100.255"} {
					a := netip.MustParseAddr(s)
					src, via := e.v4, netip.MustParseAddr(inetV4)
					if a.Is6() {
						src, via = e.v6, netip.MustParseAddr(inetV6)
					}
					from, to := netip.AddrPortFrom(src, 4000), netip.AddrPortFrom(a, uint16(port))
					for _, b := range [][]byte{udpPacket(from, to, []byte("raw")), synPacket(from, to)} {
						app.sendRaw(b, via)
						p, err := parsePacket(b)
						if err != nil {
							t.Fatal(err)
						}
						n.gate.handle(p)
						n.gate.udp.flush()
						log.inEgressLog(t, p.protocol(), to.String())
					}
				}
				_ = heard.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
				if m, from, err := heard.ReadFrom(make([]byte, 16)); err == nil {
					t.Errorf("the host heard %d bytes from %s", m, from)
				}
			})
		}
	}
	if _, err := host.mustDial("udp", at(hostV4, port)).Write([]byte("control")); err != nil {
		t.Fatal(err)
	}
	_ = heard.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, _, err := heard.ReadFrom(make([]byte, 16)); err != nil {
		t.Errorf("the host does not hear itself (%v), so this test shows nothing", err)
	}
}

func TestEgressRulesForAddresses(t *testing.T) {
	_, conf := serveZone(t)
	inet := internet(t)
	host := &namespace{t, mustHostNS(t)}
	hostPort := portOf(host.echoTCP("tcp", at(hostV4, 0)))
	for _, a := range []string{"169.254.169.254", "10.99.0.1", sharedV4, sharedV6, inetV4, inetV6} {
		inet.echoTCP("tcp", at(a, 7000))
		inet.echoUDP("udp", at(a, 7000))
	}
	app, n, log := restricted(t, fmt.Sprintf("169.254.169.254,10.99.0.0/16:7000,tcp://%s,[2600::/16]:7000,%s:%d,udp://%s:7000,icmp://%s,internal.test", sharedV4, hostV4, hostPort, inetV4, inetV6), conf, false)
	for _, a := range []string{"169.254.169.254", "10.99.0.1", sharedV4, sharedV6} {
		roundTrip(t, app.mustDial("tcp", at(a, 7000)), webRequest("whatever.test"))
	}
	roundTrip(t, app.mustDial("tcp", at(hostV4, hostPort)), []byte("the host's address, by a rule that names it"))
	roundTrip(t, app.mustDial("udp", at(inetV4, 7000)), []byte("x"))
	roundTrip(t, app.mustDial("udp", at("10.99.0.1", 7000)), []byte("x"))
	refused(t, app, log, at(inetV4, 7000), nil, inetV4)
	refused(t, app, log, at(inetV6, 7000), nil, inetV6)
	refused(t, app, log, at("10.99.0.1", 7001), nil, "10.99.0.1:7001")
	refused(t, app, log, at(hostV6, hostPort), nil, hostV6)
	prohibitedUDP(t, app, log, at(sharedV4, 7000), "udp", sharedV4)
	if got := said(ask(t, app, n, "udp4", "internal.test", dns.TypeA)); got != "NOERROR, A 10.99.0.1" {
		t.Errorf("a name for an address that a rule is about: %q", got)
	}
}

func TestEgressInternet(t *testing.T) {
	z, conf := serveZone(t)
	inet := internet(t)
	app, n, log := restricted(t, "internet", conf, false)
	roundTrip(t, app.mustDial("tcp", inet.echoTCP("tcp", at(sharedV4, 0)).String()), webRequest("x.test"))
	roundTrip(t, app.mustDial("tcp", inet.echoTCP("tcp", at(sharedV6, 0)).String()), []byte("x"))
	for _, a := range []string{inetV4, inetV6, "10.99.0.1"} {
		refused(t, app, log, inet.echoTCP("tcp", at(a, 0)).String(), nil, a, "not a public address")
		prohibitedUDP(t, app, log, inet.echoUDP("udp", at(a, 0)).String(), a, "udp")
	}
	if got := said(ask(t, app, n, "udp4", "denied.test", dns.TypeA)); got != "NOERROR, A "+otherV4 {
		t.Errorf("got %q", got)
	}
	before := len(z.questions())
	if got := said(ask(t, app, n, "udp4", "1.1.168.192.in-addr.arpa", dns.TypePTR)); got != "NXDOMAIN" || len(z.questions()) != before {
		t.Errorf("the name of a private address: %q", got)
	}
}
