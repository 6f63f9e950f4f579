package slirp

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/whisk-sandbox/whisk/config"
)

// BenchmarkStart is what a sandbox waits for: a network, a namespace's place on it, and nothing more.
func BenchmarkStart(b *testing.B) {
	internet(b)
	var made, attached time.Duration
	for b.Loop() {
		b.StopTimer()
		ns := newNamespace(b)
		c := Config{Name: "shop"}
		c.IPv4, c.IPv6 = ChoosePrefixes(c.Name, nil)
		b.StartTimer()
		t0 := time.Now()
		n, err := New(context.Background(), c)
		if err != nil {
			b.Fatal(err)
		}
		t1 := time.Now()
		if _, err := n.Attach(context.Background(), AttachOptions{NetNS: ns.fd, Name: "web"}); err != nil {
			b.Fatal(err)
		}
		t2 := time.Now()
		b.StopTimer()
		made, attached = made+t1.Sub(t0), attached+t2.Sub(t1)
		n.Close()
		time.Sleep(100 * time.Millisecond) // the kernel is taking the last one down
		b.StartTimer()
	}
	b.ReportMetric(float64(made.Microseconds())/float64(b.N), "µs/New")
	b.ReportMetric(float64(attached.Microseconds())/float64(b.N), "µs/Attach")
}

// BenchmarkThroughput compares one TCP stream each way with the host's loopback.
func BenchmarkThroughput(b *testing.B) {
	inet := internet(b)
	n := newNetwork(b)
	app, e := newSandbox(b, n, "web")
	db, d := newSandbox(b, n, "db")

	stream := func(from, to net.Conn) func(*testing.B) {
		return func(b *testing.B) {
			const chunk = 1 << 20
			b.SetBytes(chunk)
			go func() {
				buf := make([]byte, chunk)
				for range b.N {
					_, _ = from.Write(buf)
				}
			}()
			buf := make([]byte, chunk)
			start := time.Now()
			for range b.N {
				if _, err := io.ReadFull(to, buf); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*chunk*8/1e9/time.Since(start).Seconds(), "Gbit/s")
		}
	}
	pair := func(l net.Listener, dial func(string) (net.Conn, error), addr string) (net.Conn, net.Conn) {
		near, err := dial(addr)
		if err != nil {
			b.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { near.Close(); far.Close() })
		return near, far
	}
	local := func(a string) (net.Conn, error) { return net.Dial("tcp", a) }
	l := inet.listen("tcp", "127.0.0.1:0")
	near, far := pair(l, func(a string) (net.Conn, error) { return inet.dial("tcp", a) }, l.Addr().String())
	b.Run("loopback", stream(near, far))

	l = inet.listen("tcp", at(inetV4, 0))
	near, far = pair(l, local, l.Addr().String())
	b.Run("host-to-internet", stream(near, far))
	near, far = pair(l, func(a string) (net.Conn, error) { return app.dial("tcp", a) }, l.Addr().String())
	b.Run("out", stream(near, far))
	b.Run("in", stream(far, near))

	l = app.listen("tcp", ":8080")
	ports, err := n.Publish(context.Background(), e, config.Port{App: 8080, Count: 1, Protocol: "tcp"})
	if err != nil {
		b.Fatal(err)
	}
	near, far = pair(l, local, ports[0].HostAddr().String())
	b.Run("published-in", stream(near, far))
	b.Run("published-out", stream(far, near))

	l = db.listen("tcp", at(d.IPv4(), 0))
	near, far = pair(l, func(a string) (net.Conn, error) { return app.dial("tcp", a) }, l.Addr().String())
	b.Run("app-to-app", stream(near, far))
}

// BenchmarkConnect compares connections that are opened and closed one after the other with those of the host.
func BenchmarkConnect(b *testing.B) {
	inet := internet(b)
	n := newNetwork(b)
	app, e := newSandbox(b, n, "web")
	addr := inet.echoTCP("tcp", at(inetV4, 0)).String()
	listen := app.echoTCP("tcp", "0.0.0.0:0")
	ports, err := n.Publish(context.Background(), e, config.Port{App: uint16(portOf(listen)), Count: 1, Protocol: "tcp"})
	if err != nil {
		b.Fatal(err)
	}
	run := func(in *namespace, addr string) func(*testing.B) {
		return func(b *testing.B) {
			work := func() error {
				for b.Loop() {
					c, err := net.Dial("tcp", addr)
					if err != nil {
						return err
					}
					_ = c.(*net.TCPConn).SetLinger(0) // no port waits
					if _, err := c.Write([]byte("x")); err != nil {
						return err
					}
					if _, err := c.Read(make([]byte, 1)); err != nil {
						return err
					}
					c.Close()
				}
				return nil
			}
			if in != nil {
				err = in.do(work)
			} else {
				err = work()
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("host-to-internet", run(nil, addr))
	b.Run("out", run(app, addr))
	b.Run("published", run(nil, ports[0].HostAddr().String()))
}
