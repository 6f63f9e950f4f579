package slirp

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func roundTrip(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	go func() { _, _ = c.Write(b) }()
	got := make([]byte, len(b))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatalf("reading the echo from %s: %v", c.RemoteAddr(), err)
	}
	if !bytes.Equal(got, b) {
		t.Fatalf("echo from %s: got other bytes than sent", c.RemoteAddr())
	}
}

func TestAppReachesInternet(t *testing.T) {
	inet := internet(t)
	n := newNetwork(t)
	app, _ := newSandbox(t, n, "web")
	for _, remote := range []string{inetV4, inetV6} {
		t.Run("tcp "+remote, func(t *testing.T) {
			a := inet.echoTCP("tcp", at(remote, 0))
			roundTrip(t, app.mustDial("tcp", a.String()), []byte("hello"))
		})
		t.Run("udp "+remote, func(t *testing.T) {
			a := inet.echoUDP("udp", at(remote, 0))
			c := app.mustDial("udp", a.String())
			for _, size := range []int{0, 1, 1400, 9000, 65000} {
				b := make([]byte, size)
				_, _ = rand.Read(b)
				if _, err := c.Write(b); err != nil {
					t.Fatalf("sending %d bytes: %v", size, err)
				}
				got := make([]byte, 1<<16)
				m, err := c.Read(got)
				if err != nil || !bytes.Equal(got[:m], b) {
					t.Fatalf("datagram of %d bytes came back as %d, %v", size, m, err)
				}
			}
		})
	}
}

func TestRefusedIsRefusedAtOnce(t *testing.T) {
	n := newNetwork(t)
	app, _ := newSandbox(t, n, "web")
	for _, remote := range []string{inetV4, inetV6} {
		fastest := time.Hour // of three: other work of the machine is not what is measured
		for range 3 {
			start := time.Now()
			_, err := app.dial("tcp", at(remote, 9))
			fastest = min(fastest, time.Since(start))
			if !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("connecting to a closed port of %s: got %v, want refused", remote, err)
			}
		}
		if fastest > 900*time.Millisecond {
			t.Errorf("refusal from %s took %v, which is no answer to the first SYN", remote, fastest)
		}

		c := app.mustDial("udp", at(remote, 9))
		_, _ = c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("datagram to a closed port of %s: got %v, want refused", remote, err)
		}
	}
}

func TestBytesArriveWhole(t *testing.T) {
	const size = 100 << 20
	inet := internet(t)
	n := newNetwork(t)
	app, _ := newSandbox(t, n, "web")
	for _, remote := range []string{inetV4, inetV6} {
		t.Run(remote, func(t *testing.T) {
			l := inet.listen("tcp", at(remote, 0))
			sent, received := sha256.New(), sha256.New()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
			c := app.mustDial("tcp", l.Addr().String()).(*net.TCPConn)
			go func() {
				_, _ = io.CopyN(io.MultiWriter(c, sent), rand.Reader, size)
				_ = c.CloseWrite()
			}()
			m, err := io.Copy(received, c)
			if err != nil || m != size {
				t.Fatalf("got %d bytes back, %v; want %d", m, err, size)
			}
			if !bytes.Equal(sent.Sum(nil), received.Sum(nil)) {
				t.Fatal("checksums differ")
			}
		})
	}
}

func TestHalfCloseIsCarriedOver(t *testing.T) {
	inet := internet(t)
	n := newNetwork(t)
	app, _ := newSandbox(t, n, "web")
	l := inet.listen("tcp", at(inetV4, 0))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b, _ := io.ReadAll(c) // until the app ends its side
				_, _ = c.Write(append([]byte("got "), b...))
			}()
		}
	}()
	c := app.mustDial("tcp", l.Addr().String()).(*net.TCPConn)
	_, _ = c.Write([]byte("all"))
	_ = c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "got all" {
		t.Fatalf("after the app's half-close: got %q, %v", b, err)
	}
}

func TestResetIsCarriedOver(t *testing.T) {
	inet := internet(t)
	n := newNetwork(t)
	app, _ := newSandbox(t, n, "web")
	l := inet.listen("tcp", at(inetV4, 0))
	c := app.mustDial("tcp", l.Addr().String()).(*net.TCPConn)
	r, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.(*net.TCPConn).SetLinger(0)
	r.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("remote resets: app got %v, want reset", err)
	}

	c = app.mustDial("tcp", l.Addr().String()).(*net.TCPConn)
	if r, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	_ = c.SetLinger(0)
	c.Close()
	_ = r.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("app resets: remote got %v, want reset", err)
	}
}

func TestUnreachableIsToldAtOnce(t *testing.T) {
	n := newNetwork(t)
	app, _ := newSandbox(t, n, "web")
	for _, c := range []struct {
		name, addr string
		want       error
	}{
		{"prohibited by the host", "203.0.113.1:80", unix.EHOSTUNREACH},
		{"unreachable for the host", "203.0.113.129:80", unix.EHOSTUNREACH},
		{"unreachable for the host, IPv6", "[2001:db8:bad::1]:80", unix.EHOSTUNREACH},
		{"address without a sandbox", at(n.plan.v4.Addr().Next().Next().Next().Next(), 80), unix.EHOSTUNREACH},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			if _, err := app.dial("tcp", c.addr); !errors.Is(err, c.want) {
				t.Errorf("connecting to %s: got %v, want %v", c.addr, err, c.want)
			}
			if d := time.Since(start); d > 900*time.Millisecond { // a SYN that nobody answers is sent again after a second
				t.Errorf("connecting to %s: told after %v, which is no answer to the first SYN", c.addr, d)
			}
		})
	}
}

func TestAppsReachEachOther(t *testing.T) {
	n := newNetwork(t)
	web, _ := newSandbox(t, n, "web")
	db, e := newSandbox(t, n, "db")
	for _, a := range []string{e.IPv4().String(), e.IPv6().String()} {
		addr := db.echoTCP("tcp", at(a, 0))
		roundTrip(t, web.mustDial("tcp", addr.String()), bytes.Repeat([]byte("x"), 1<<20))
		if _, err := web.dial("tcp", at(a, 9)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("closed port of another app: got %v, want refused", err)
		}
	}
	for _, a := range []string{"127.0.0.1", "::1"} {
		addr := web.echoTCP("tcp", at(a, 0))
		roundTrip(t, web.mustDial("tcp", addr.String()), []byte("own loopback"))
	}
}

func TestHostIsOutOfReach(t *testing.T) {
	internet(t)
	n := newNetwork(t)
	app, _ := newSandbox(t, n, "web")
	host := &namespace{t, mustHostNS(t)}
	port := portOf(host.echoTCP("tcp", "[::]:0")) // every address of the host's, both families
	for _, a := range []string{"127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", hostV4, hostV6, "::ffff:" + hostV4, "169.254.169.254", "fd00:ec2::254", "198.51.100.255"} {
		t.Run(a, func(t *testing.T) {
			c, err := app.dial("tcp", at(a, port))
			if err == nil {
				c.Close()
				t.Errorf("reached the host at %s", a)
			}
		})
	}
}

func mustHostNS(t *testing.T) int {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestEgressNone(t *testing.T) {
	inet := internet(t)
	n := newNetwork(t, func(c *Config) { c.Egress = "none" })
	web, _ := newSandbox(t, n, "web")
	db, e := newSandbox(t, n, "db")
	for _, remote := range []string{inetV4, inetV6} {
		a := inet.echoTCP("tcp", at(remote, 0))
		if _, err := web.dial("tcp", a.String()); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("tcp to %s: got %v, want refused", remote, err)
		}
		u := inet.echoUDP("udp", at(remote, 0))
		c := web.mustDial("udp", u.String())
		_, _ = c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) {
			t.Errorf("udp to %s: got %v, want prohibited", remote, err)
		}
	}
	roundTrip(t, web.mustDial("tcp", db.echoTCP("tcp", at(e.IPv4(), 0)).String()), []byte("apps still talk"))
}
