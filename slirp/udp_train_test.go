package slirp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// numbered is a datagram of this size, two bytes at least, that says which one it is.
func numbered(i, size int) []byte {
	b := bytes.Repeat([]byte{byte(i)}, size)
	binary.BigEndian.PutUint16(b, uint16(i))
	return b
}

// receiveSizes reads datagrams made by numbered, in their order, and returns their sizes.
func receiveSizes(t *testing.T, c net.PacketConn, n int) (sizes []int) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 1<<16)
	for i := range n {
		m, _, err := c.ReadFrom(b)
		if err != nil {
			t.Fatalf("after %d of %d datagrams: %v", i, n, err)
		}
		if !bytes.Equal(b[:m], numbered(i, m)) {
			t.Fatalf("datagram %d is another one: % x…", i, b[:min(m, 8)])
		}
		sizes = append(sizes, m)
	}
	return sizes
}

func TestTrain(t *testing.T) {
	internet(t) // and loopback
	sink, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	c, err := net.Dial("udp", sink.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, other := newSession(c.(*net.UDPConn)), newSession(c.(*net.UDPConn))
	for _, of := range []struct {
		name  string
		sizes []int
		taken int // how many make one train
	}{
		{"alike", []int{1000, 1000, 1000}, 3},
		{"a shorter last one", []int{1000, 1000, 10}, 3},
		{"nothing after a shorter one", []int{1000, 10, 10}, 2},
		{"a longer one", []int{10, 1000}, 1},
		{"no more than an IP packet", []int{40000, 24000, 2000}, 2},
		{"no more than the kernel takes", slices.Repeat([]int{2}, maxTrain+1), maxTrain},
	} {
		t.Run(of.name, func(t *testing.T) {
			var tr train
			for i, size := range of.sizes {
				p := packet{transport: append(make([]byte, header.UDPMinimumSize), numbered(i, size)...)}
				if got, want := tr.add(s, p), i < of.taken; got != want {
					t.Fatalf("datagram %d: taken %t, want %t", i, got, want)
				}
				if i >= of.taken {
					break
				}
				if tr.add(other, p) {
					t.Fatal("took a datagram of another flow")
				}
			}
			if of.taken == 1 {
				return
			}
			if err := tr.send(); err != nil {
				t.Fatal(err)
			}
			if got := receiveSizes(t, sink, of.taken); !slices.Equal(got, of.sizes[:of.taken]) {
				t.Errorf("arrived as %v, sent as %v", got, of.sizes[:of.taken])
			}
		})
	}
}

// TestDatagramsArriveAsSent has an app send many at once, so that whisk finds rows of them.
func TestDatagramsArriveAsSent(t *testing.T) {
	inet := internet(t)
	n := newNetwork(t)
	app, _ := newSandbox(t, n, "web")
	// A path that is narrower than some of the datagrams: they are sent one by one, as fragments.
	const narrow = "198.51.100.140"
	l, err := netlink.LinkByName("wan")
	if err != nil {
		t.Fatal(err)
	}
	if err := inet.do(func() error { return setUp("inet", narrow+"/32") }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = inet.do(func() error {
			l, err := netlink.LinkByName("inet")
			if err == nil {
				err = netlink.AddrDel(l, &netlink.Addr{IPNet: netlink.NewIPNet(net.ParseIP(narrow))})
			}
			return err
		})
	})
	route := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: netlink.NewIPNet(net.ParseIP(narrow)), MTU: 1000}
	if err := netlink.RouteAdd(route); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.RouteDel(route) })
	var sizes []int
	for _, size := range []int{900, 1200, 9000, 64} {
		sizes = append(sizes, size, size, size, size, size, size/2, size/2, size)
	}
	for _, a := range []string{inetV4, inetV6, narrow} {
		t.Run(a, func(t *testing.T) {
			sink := inet.listenPacket("udp", at(a, 0))
			c := app.mustDial("udp", sink.LocalAddr().String()).(*net.UDPConn)
			// whisk's reader is kept busy until all are there.
			for round := range 3 {
				held, sent := make(chan struct{}), make(chan struct{})
				if round > 0 {
					go func() {
						n.gate.udp.flows.mu.Lock()
						close(held)
						<-sent
						n.gate.udp.flows.mu.Unlock()
					}()
					<-held
				}
				for i, size := range sizes {
					if _, err := c.Write(numbered(i, size)); err != nil {
						t.Fatal(err)
					}
				}
				close(sent)
				if got := receiveSizes(t, sink, len(sizes)); !slices.Equal(got, sizes) {
					t.Errorf("arrived as %v,\nsent as %v", got, sizes)
				}
			}
		})
	}
}

// TestTrainToAClosedPort: what the host learns of a row of datagrams, the app learns.
func TestTrainToAClosedPort(t *testing.T) {
	internet(t)
	n := newNetwork(t)
	app, _ := newSandbox(t, n, "web")
	c := app.mustDial("udp", at(inetV4, 9)).(*net.UDPConn)
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	for {
		for i := range 8 {
			if _, err := c.Write(numbered(i, 100)); err != nil {
				if !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("got %v, want refused", err)
				}
				return
			}
		}
	}
}
