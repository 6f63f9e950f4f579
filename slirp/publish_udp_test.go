package slirp

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/whisk-sandbox/whisk/config"
)

// hears returns what arrives at a socket until nothing has for so long.
func hears(c net.PacketConn, quiet time.Duration) map[string]int {
	got := make(map[string]int)
	b := make([]byte, 1<<16)
	for {
		_ = c.SetReadDeadline(time.Now().Add(quiet))
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return got
		}
		got[string(b[:n])]++
	}
}

// TestEvictedUDPClientsSayNothingTwice: when there are too many clients, the oldest ones lose their place and nothing else
// happens to what they have sent.
func TestEvictedUDPClientsSayNothingTwice(t *testing.T) {
	raiseDescriptors(t, 4*maxClients)
	n := newNetwork(t)
	app, e := newSandbox(t, n, "log")
	l := app.listenPacket("udp", "0.0.0.0:0")
	p := publish(t, n, e, config.Port{App: uint16(portOf(l.LocalAddr())), Count: 1, Protocol: "udp"})[0]
	result := make(chan map[string]int, 1)
	go func() { result <- hears(l, 3*time.Second) }()
	for i := range maxClients + 400 {
		c := hostDial(t, "udp", p.HostAddr())
		_, _ = fmt.Fprintf(c, "client %d", i)
		time.Sleep(200 * time.Microsecond) // the sockets' queues are short
	}
	got := <-result
	if len(got) < maxClients {
		t.Errorf("the app has heard %d clients: the test shows nothing", len(got))
	}
	for what, times := range got {
		if times > 1 {
			t.Fatalf("the app gets %q %d times", what, times)
		}
	}
}

// TestOldDatagramsAreNotSentAgain: an app that never answers comes back on another address. It gets what is sent from then
// on.
func TestOldDatagramsAreNotSentAgain(t *testing.T) {
	n := newNetwork(t)
	app, e := newSandbox(t, n, "log")
	const port = 514
	before := app.listenPacketQuiet(at(e.IPv4(), port))
	p := publish(t, n, e, config.Port{App: port, Count: 1, Protocol: "udp"})[0]
	c := hostDial(t, "udp", p.HostAddr())
	say := func(s string) { _, _ = c.Write([]byte(s)) }
	for _, s := range []string{"one", "two"} {
		say(s)
		if got := hears(before, 300*time.Millisecond); got[s] != 1 {
			t.Fatalf("the app hears %v, want %q", got, s)
		}
	}
	before.Close()
	after := app.listenPacketQuiet(at(e.IPv6(), port))
	defer after.Close()
	say("three") // is refused at the old address
	got := hears(after, 500*time.Millisecond)
	say("four")
	for s, times := range hears(after, 500*time.Millisecond) {
		got[s] += times
	}
	if got["one"]+got["two"] > 0 || got["four"] != 1 {
		t.Errorf("the app, back on another address, hears %v; want four, and nothing old", got)
	}
}

// TestDatagramsFindAnAppOnItsOtherAddress: the first ones, too, in whatever number they come.
func TestDatagramsFindAnAppOnItsOtherAddress(t *testing.T) {
	n := newNetwork(t)
	app, e := newSandbox(t, n, "log")
	for name, listen := range map[string]string{"IPv6": at(e.IPv6(), 0), "loopback": "127.0.0.1:0", "IPv6 loopback": "[::1]:0"} {
		t.Run(name, func(t *testing.T) {
			l := app.listenPacket("udp", listen)
			p := publish(t, n, e, config.Port{App: uint16(portOf(l.LocalAddr())), Count: 1, Protocol: "udp"})[0]
			c := hostDial(t, "udp", p.HostAddr())
			_, _ = c.Write([]byte("first"))
			if got := hears(l, time.Second); got["first"] != 1 {
				t.Errorf("the app hears %v, want the first datagram, once", got)
			}
			// What is sent at once: some may be lost while the way is found, none come twice, and the last ones arrive.
			c = hostDial(t, "udp", p.HostAddr())
			for i := range 50 {
				_, _ = fmt.Fprintf(c, "%d%s", i, strings.Repeat("x", 1000))
				if i%10 == 9 {
					time.Sleep(20 * time.Millisecond)
				}
			}
			got := hears(l, time.Second)
			for s, times := range got {
				if times > 1 {
					t.Errorf("the app hears %.3q %d times", s, times)
				}
			}
			if len(got) < 20 {
				t.Errorf("the app hears %d of 50 datagrams", len(got))
			}
		})
	}
}

// listenPacketQuiet is listenPacket for a socket that the test closes.
func (ns *namespace) listenPacketQuiet(addr string) (c net.PacketConn) {
	ns.tb.Helper()
	if err := ns.do(func() (err error) { c, err = net.ListenPacket("udp", addr); return err }); err != nil {
		ns.tb.Fatal(err)
	}
	return c
}
