package slirp

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
)

// chatter keeps the loops of a network busy: clients of a published port that ask and are answered without a pause. It
// returns how many answers there were so far.
func chatter(t *testing.T, n *Network, app *namespace, e *Endpoint) *atomic.Int64 {
	t.Helper()
	a := app.echoTCP("tcp", "0.0.0.0:0")
	p := publish(t, n, e, config.Port{App: uint16(portOf(a)), Count: 1, Protocol: "tcp"})[0]
	answers := new(atomic.Int64)
	for range 2 * len(n.loops.all) {
		c, err := net.Dial("tcp", p.HostAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		over := make(chan struct{})
		go func() {
			defer close(over)
			b := []byte("x")
			for {
				if _, err := c.Write(b); err != nil {
					return
				}
				if _, err := c.Read(b); err != nil {
					return
				}
				answers.Add(1)
			}
		}()
		t.Cleanup(func() { c.Close(); <-over })
	}
	return answers
}

// TestDialsEndInTimeInABusyLoop: a loop that always has something to do looks at its dials all the same.
func TestDialsEndInTimeInABusyLoop(t *testing.T) {
	n := newNetwork(t)
	app, e := newSandbox(t, n, "web")
	chatter(t, n, app, e)
	full := app.listenBacklog("0.0.0.0", 0)
	filler, err := app.dial("tcp", at("127.0.0.1", portOf(full.Addr()))) // a queue of 0 holds one
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	p := publish(t, n, e, config.Port{App: uint16(portOf(full.Addr())), Count: 1, Protocol: "tcp"})[0]
	c := hostDial(t, "tcp", p.HostAddr())
	// As if its time were over.
	for waiting := 0; waiting == 0; {
		for _, l := range n.loops.all {
			done := make(chan struct{})
			l.post(func() {
				for d := range l.dials {
					if d.port == p.listener {
						d.expiry = time.Now().Add(-time.Second)
						waiting++
					}
				}
				close(done)
			})
			<-done
		}
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

// TestNoDescriptorsNoHurry: a published port that cannot accept does not hold up the connections that are there, and takes
// the client once it can.
func TestNoDescriptorsNoHurry(t *testing.T) {
	n := newNetwork(t)
	app, e := newSandbox(t, n, "web")
	a := app.echoTCP("tcp", "0.0.0.0:0")
	p := publish(t, n, e, config.Port{App: uint16(portOf(a)), Count: 1, Protocol: "tcp"})[0]
	answers := chatter(t, n, app, e)
	rate := func() int64 {
		before := answers.Load()
		time.Sleep(time.Second)
		return answers.Load() - before
	}
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(client), "client")
	defer f.Close()
	usual := rate()

	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	var fill []int
	restore := func() {
		// The limit first: with a few descriptors at a time the port would take the client, and then the app, which is of
		// this process, too, would have none.
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
		for _, fd := range fill {
			unix.Close(fd)
		}
		fill = nil
	}
	defer restore()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(descriptors(t)) + 50), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	for {
		fd, err := unix.FcntlInt(uintptr(client), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			break
		}
		fill = append(fill, fd)
	}
	if err := unix.Connect(client, sockaddrOf(p.HostAddr())); err != nil {
		t.Fatal(err)
	}
	if got := rate(); got < usual/10 {
		t.Errorf("%d answers a second on other connections while a port cannot accept, %d before", got, usual)
	}
	restore()
	_ = f.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := f.Write([]byte("at last")); err != nil {
		t.Fatal(err)
	}
	_ = unix.SetsockoptTimeval(client, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20})
	b := make([]byte, 7)
	if _, err := io.ReadFull(f, b); err != nil || string(b) != "at last" {
		t.Errorf("got %q, %v; want it served", b, err)
	}
}

// TestPortsCloseWhileTheyRest: a port that is closed while it cannot accept does not come back.
func TestPortsCloseWhileTheyRest(t *testing.T) {
	n := newNetwork(t)
	_, e := newSandbox(t, n, "web")
	p := publish(t, n, e, config.Port{App: 80, Count: 1, Protocol: "tcp"})[0]
	for _, l := range n.loops.all {
		done := make(chan struct{})
		l.post(func() {
			l.rest(&taker{p.listener.(*tcpForward), l})
			close(done)
		})
		<-done
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for _, l := range n.loops.all {
		left := make(chan int)
		l.post(func() { left <- len(l.resting) })
		if k := <-left; k != 0 {
			t.Errorf("%d ports still rest", k)
		}
	}
}
