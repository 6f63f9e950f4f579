package slirp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tcpInfo is what a kernel knows of a connection, tcp(7).
func tcpInfo(t *testing.T, c *net.TCPConn) *unix.TCPInfo {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	cerr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO) })
	if err := errors.Join(err, cerr); err != nil {
		t.Fatal(err)
	}
	return info
}

// TestKernelsChooseSegmentsAndWindows: on each side of whisk the segments are as large as the way there lets them be, and
// the options are those of the kernels (TCPI_OPT_TIMESTAMPS, _SACK and _WSCALE, linux/tcp.h).
func TestKernelsChooseSegmentsAndWindows(t *testing.T) {
	inet := internet(t)
	const narrow, options = 1400, 1 | 2 | 4
	for i, remote := range []string{"198.51.100.91", "2001:db8::91"} {
		a := netip.MustParseAddr(remote)
		if err := inet.do(func() error { return setUp("inet", fmt.Sprintf("%s/%d", a, a.BitLen())) }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = inet.do(func() error {
				l, err := netlink.LinkByName("inet")
				if err != nil {
					return err
				}
				addr, err := netlink.ParseAddr(fmt.Sprintf("%s/%d", a, a.BitLen()))
				if err != nil {
					return err
				}
				return netlink.AddrDel(l, addr)
			})
		})
		wan, err := netlink.LinkByName("wan")
		if err != nil {
			t.Fatal(err)
		}
		_, dst, _ := net.ParseCIDR(fmt.Sprintf("%s/%d", a, a.BitLen()))
		way := &netlink.Route{Dst: dst, LinkIndex: wan.Attrs().Index, MTU: narrow}
		if err := netlink.RouteReplace(way); err != nil {
			t.Fatalf("narrowing the way to %s: %v", a, err)
		}
		t.Cleanup(func() { _ = netlink.RouteDel(way) })
		headers := []uint32{20, 40}[i] + 20 + 12 // IP, TCP, timestamps
		for _, slow := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, slow %v", remote, slow), func(t *testing.T) {
				n := newNetwork(t, func(c *Config) { c.NoFastPath = slow })
				app, _ := newSandbox(t, n, "web")
				l := inet.listenBacklog(remote, 4)
				c := app.mustDial("tcp", l.Addr().String()).(*net.TCPConn)
				s, err := l.AcceptTCP()
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				sent := make(chan error, 1)
				go func() { _, err := c.Write(make([]byte, 4<<20)); sent <- err }()
				for got, b := 0, make([]byte, 1<<16); got < 4<<20; {
					m, err := s.Read(b)
					if got += m; err != nil {
						t.Fatalf("after %d bytes: %v", got, err)
					}
				}
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
				inside, outside := tcpInfo(t, c), tcpInfo(t, s)
				if want := linkMTU - headers; inside.Snd_mss != want && !(slow && inside.Snd_mss > want/2) {
					t.Errorf("the app's segments are %d bytes, want %d", inside.Snd_mss, want)
				}
				if want := narrow - headers; outside.Rcv_mss != want {
					t.Errorf("the server gets segments of %d bytes, want the %d of a way of %d", outside.Rcv_mss, want, narrow)
				}
				if inside.Options&options != options && !slow || outside.Options&options != options {
					t.Errorf("options are %#x inside and %#x outside, want %#x", inside.Options, outside.Options, options)
				}
			})
		}
	}
}

// TestPeerThatVanishes: an idle connection whose other end is gone without a word ends for the app, too, at the host's
// own intervals. Its kernel's probes would be answered by the router.
func TestPeerThatVanishes(t *testing.T) {
	inet := internet(t)
	for name, value := range map[string]string{"tcp_keepalive_time": "1", "tcp_keepalive_intvl": "1", "tcp_keepalive_probes": "2"} {
		path := "/proc/sys/net/ipv4/" + name
		before, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, []byte(value), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.WriteFile(path, before, 0) })
	}
	for _, slow := range []bool{false, true} {
		n := newNetwork(t, func(c *Config) { c.NoFastPath = slow })
		app, _ := newSandbox(t, n, "web")
		for _, remote := range []string{inetV4, inetV6} {
			t.Run(fmt.Sprintf("%s, slow %v", remote, slow), func(t *testing.T) {
				echo := inet.echoTCP("tcp", at(remote, 0))
				here, gone := app.mustDial("tcp", echo.String()), app.mustDial("tcp", at(remote, portOf(inet.echoTCP("tcp", at(remote, 0)))))
				roundTrip(t, here, []byte("x"))
				roundTrip(t, gone, []byte("x"))
				inet.meetPackets(t, "vanished", netip.MustParseAddrPort(gone.RemoteAddr().String()), nil, &expr.Verdict{Kind: expr.VerdictDrop})
				_ = gone.SetReadDeadline(time.Now().Add(patience))
				if _, err := gone.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("a connection to who is gone: %v, want it reset", err)
				}
				roundTrip(t, here, []byte("still there"))
			})
		}
	}
}

// TestConnectionsInTheMakingAreLimited: above the limits a SYN is dropped, and its app's kernel sends it again. What is
// established has none.
func TestConnectionsInTheMakingAreLimited(t *testing.T) {
	inet := internet(t)
	for _, slow := range []bool{false, true} {
		n := newNetwork(t, func(c *Config) { c.NoFastPath = slow })
		app, e := newSandbox(t, n, "web")
		echo := inet.echoTCP("tcp", at(inetV4, 0)).String()
		before := app.mustDial("tcp", echo)
		roundTrip(t, before, []byte("before"))
		flows := &n.gate.tcp
		for _, c := range []struct {
			name string
			full func(sign int)
		}{
			{"of one sandbox", func(sign int) { flows.bySource[e.IPv4()] += sign * maxDialsSource }},
			{"of all", func(sign int) { flows.dials += sign * maxDials }},
		} {
			t.Run(fmt.Sprintf("%s, slow %v", c.name, slow), func(t *testing.T) {
				change := func(sign int) {
					flows.mu.Lock()
					defer flows.mu.Unlock()
					c.full(sign)
				}
				change(1)
				begun := time.Now()
				made := make(chan error, 1)
				go func() {
					conn, err := app.dialFor(patience, echo)
					if err == nil {
						err = exchangeOwn(conn, 1)
						conn.Close()
					}
					made <- err
				}()
				time.Sleep(500 * time.Millisecond)
				roundTrip(t, before, []byte("meanwhile"))
				select {
				case err := <-made:
					t.Errorf("a connection beyond the limit: %v after %v", err, time.Since(begun))
				default:
				}
				change(-1)
				if err := <-made; err != nil {
					t.Errorf("a connection that had to wait: %v", err)
				}
				if took := time.Since(begun); took < 900*time.Millisecond { // a SYN is sent again after a second
					t.Errorf("it was made after %v", took)
				}
			})
		}
	}
}
