package slirp

import (
	"net"
	"runtime"
	"testing"
	"time"
)

// TestIdleConnectionsAreSmall: what the user-mode stack carries needs buffers only while bytes are on their way.
func TestIdleConnectionsAreSmall(t *testing.T) {
	const held, most = 1000, 64 << 10 // bytes each, the test's own two ends and their stacks included
	raiseDescriptors(t, 6*held)
	inet := internet(t)
	n := newNetwork(t, func(c *Config) { c.NoFastPath = true })
	app, _ := newSandbox(t, n, "web")
	l := inet.listen("tcp", at(inetV4, 0))
	accepted := make(chan net.Conn, held)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	var conns []net.Conn
	dial := func(count int) {
		t.Helper()
		for range count {
			c, err := app.dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			far := <-accepted
			t.Cleanup(func() { c.Close(); far.Close() })
			conns = append(conns, c, far)
			_ = c.SetDeadline(time.Now().Add(60 * time.Second))
			// Both ways have been used, and wait now.
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := far.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if _, err := far.Write([]byte("y")); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	inUse := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // pools are emptied by the second
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	dial(10) // what is made once
	before := inUse()
	dial(held)
	each := (inUse() - before) / held
	t.Logf("%d bytes a connection", each)
	if each > most {
		t.Errorf("an idle connection has %d bytes, want at most %d", each, most)
	}
	runtime.KeepAlive(conns)
}
