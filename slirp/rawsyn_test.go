package slirp

import (
	"net/netip"
	"testing"
	"time"
)

// TestRawSYNsHoldNoMoreThanDials: with CAP_NET_RAW, which sandboxes have, an app can ask for a connection and not take it.
// Each that it asks for is made outside, so what it has not taken counts as one being made.
func TestRawSYNsHoldNoMoreThanDials(t *testing.T) {
	inet := internet(t)
	for _, c := range []struct {
		name   string
		change func(*Config)
	}{
		{"fast path", func(*Config) {}},
		{"netstack", func(c *Config) { c.NoFastPath = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t, c.change)
			bad, e := newSandbox(t, n, "bad")
			good, _ := newSandbox(t, n, "good")
			silent := inet.listenBacklog(inetV4, 4096) // accepts nothing, so that it has no descriptors of connections
			dst := netip.MustParseAddrPort(silent.Addr().String())
			echo := inet.echoTCP("tcp", at(inetV4, 0)).String()
			roundTrip(t, good.mustDial("tcp", echo), []byte("before")) // what is made once is there

			before := len(descriptors(t))
			const tries = 3 * maxDialsSource
			begun := time.Now()
			for most := 0; ; {
				for i := range tries {
					bad.sendRaw(synPacket(netip.AddrPortFrom(e.IPv4(), uint16(10000+i)), dst), dst.Addr())
				}
				most = max(most, len(descriptors(t))-before)
				if most > maxDialsSource+50 {
					t.Errorf("connections that nobody has taken hold %d descriptors, want at most %d", most, maxDialsSource)
					break
				}
				took := time.Since(begun)
				if took > 3*time.Second && most >= maxDialsSource/2 {
					break
				}
				if took > 30*time.Second { // however slow the machine is
					t.Errorf("at most %d descriptors were held: the test shows nothing", most)
					break
				}
			}
			roundTrip(t, good.mustDial("tcp", echo), []byte("meanwhile"))
		})
	}
}
