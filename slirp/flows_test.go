package slirp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Numbers of the promise: so many connections one after the other, and so many at once.
const (
	flowsInARow = 20000
	flowsAtOnce = 5000
)

// raiseDescriptors lifts the limit to what the kernel lets this user have. A held connection costs this process three: the
// app is here too.
func raiseDescriptors(t *testing.T, need uint64) {
	t.Helper()
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	if l.Max < need {
		t.Fatalf("this test needs %d descriptors, and the hard limit is %d: raise it with ulimit -Hn or limits.conf(5)", need, l.Max)
	}
	l.Cur = l.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Fatalf("raising the limit on descriptors: %v", err)
	}
}

// exchange sends 32 bytes that nobody else sends, and wants them back.
func exchangeOwn(c net.Conn, id uint64) error {
	var b, got [32]byte
	for i := range 4 {
		binary.BigEndian.PutUint64(b[i*8:], id*0x9e3779b97f4a7c15+uint64(i))
	}
	if _, err := c.Write(b[:]); err != nil {
		return fmt.Errorf("sending on connection %d: %w", id, err)
	}
	if _, err := io.ReadFull(c, got[:]); err != nil {
		return fmt.Errorf("reading from connection %d: %w", id, err)
	}
	if !bytes.Equal(got[:], b[:]) {
		return fmt.Errorf("connection %d: got %x, want %x", id, got, b)
	}
	return nil
}

// dialFlow connects from a thread that is in the sandbox's namespace already.
func dialFlow(to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Timeout: patience, KeepAlive: -1}
	c, err := d.Dial("tcp", to.String())
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(3 * patience))
	}
	return c, err
}

// echoEnv makes TestServeEcho the server of another test, in a process of its own: its descriptors are not to be counted
// here.
const echoEnv = "SLIRP_TEST_ECHO"

// startEcho serves an echo on listeners until the test ends.
func startEcho(t *testing.T, listeners []*net.TCPListener) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestServeEcho$", "-test.timeout=0")
	cmd.Env = append(os.Environ(), echoEnv+"=1")
	cmd.Stderr = os.Stderr
	for _, l := range listeners {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		defer l.Close() // the other process has it
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("starting the echo server: %v", err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("echo server: %v", err)
		}
	})
}

// TestServeEcho is no test: see startEcho. On its own it has nothing to serve.
func TestServeEcho(t *testing.T) {
	if os.Getenv(echoEnv) == "" {
		return
	}
	for fd := range 2 {
		l, err := net.FileListener(os.NewFile(uintptr(3+fd), "listener"))
		if err != nil {
			t.Fatal(err)
		}
		serveEchoTCP(l)
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until the other process closes it, or ends
}

// counted is what must be as it was.
type counted struct{ descriptors, goroutines int }

func (c counted) same(t *testing.T, when string) {
	t.Helper()
	settled(t, "descriptors after "+when, c.descriptors, func() int { return len(descriptors(t)) }, func() string { return histogram(descriptors(t)) })
	settled(t, "goroutines after "+when, c.goroutines, runtime.NumGoroutine, goroutineDump)
}

// histogram says how many descriptors there are of each kind.
func histogram(links []string) string {
	count := make(map[string]int)
	for _, l := range links {
		kind, _, _ := strings.Cut(l, ":")
		count[kind]++
	}
	return fmt.Sprint(count)
}

func testManyFlows(t *testing.T, need uint64, change ...func(*Config)) {
	raiseDescriptors(t, need)
	inet := internet(t)
	n := newNetwork(t, change...)
	app, _ := newSandbox(t, n, "web")
	var to [2]netip.AddrPort
	var listeners []*net.TCPListener
	for i, a := range []string{inetV4, inetV6} {
		l := inet.listenBacklog(a, 4096)
		listeners = append(listeners, l)
		to[i] = netip.MustParseAddrPort(l.Addr().String())
	}
	startEcho(t, listeners)
	// What is made once (event loops, the stack) is made before counting.
	for i := range 64 {
		one(t, app, to[i%2], uint64(i))
	}
	// So are the pipes that wait for the next bulk transfer.
	bulk := app.mustDial("tcp", to[0].String())
	roundTrip(t, bulk, make([]byte, 8<<20))
	bulk.Close()
	time.Sleep(100 * time.Millisecond)
	before := counted{len(descriptors(t)), runtime.NumGoroutine()}

	start := time.Now()
	var next atomic.Int64
	each(t, app, 16, func() error {
		for {
			i := next.Add(1)
			if i > flowsInARow {
				return nil
			}
			c, err := dialFlow(to[i%2])
			if err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			// Without the wait of TIME_WAIT the app's 28,000 ports are not the limit of the test.
			if err := exchangeOwn(c, uint64(i)); err != nil {
				c.Close()
				return err
			}
			if i%2 == 0 {
				_ = c.(*net.TCPConn).SetLinger(0)
			}
			c.Close()
		}
	})
	t.Logf("%d connections in a row: %v", flowsInARow, time.Since(start).Round(time.Millisecond))
	before.same(t, "connections in a row")

	start = time.Now()
	conns := make([]net.Conn, flowsAtOnce)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	next.Store(-1)
	each(t, app, 64, func() error {
		for {
			i := next.Add(1)
			if i >= flowsAtOnce {
				return nil
			}
			c, err := dialFlow(to[i%2])
			if err != nil {
				return fmt.Errorf("held connection %d: %w", i, err)
			}
			conns[i] = c
		}
	})
	t.Logf("%d connections held: after %v, %d descriptors and %d goroutines more (one descriptor of each is the test's)", flowsAtOnce, time.Since(start).Round(time.Millisecond),
		len(descriptors(t))-before.descriptors, runtime.NumGoroutine()-before.goroutines)
	for round := range 3 {
		next.Store(-1)
		each(t, app, 64, func() error {
			for {
				i := next.Add(1)
				if i >= flowsAtOnce {
					return nil
				}
				if err := exchangeOwn(conns[i], uint64(round)<<32|uint64(i)); err != nil {
					return err
				}
			}
		})
	}
	for i, c := range conns {
		c.Close()
		conns[i] = nil
	}
	before.same(t, "connections held at once")
	n.gate.tcp.mu.Lock()
	defer n.gate.tcp.mu.Unlock()
	if len(n.gate.tcp.flows) != 0 || n.gate.tcp.dials != 0 || len(n.gate.tcp.bySource) != 0 {
		t.Errorf("flows are left: %d, %d dials, %v", len(n.gate.tcp.flows), n.gate.tcp.dials, n.gate.tcp.bySource)
	}
}

func one(t *testing.T, app *namespace, to netip.AddrPort, id uint64) {
	t.Helper()
	c, err := app.dial("tcp", to.String())
	if err == nil {
		err = exchangeOwn(c, id)
		c.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// each runs f on several threads in a sandbox's namespace.
func each(t *testing.T, ns *namespace, threads int, f func() error) {
	t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, threads)
	for i := range threads {
		wg.Go(func() { errs[i] = ns.do(f) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestManyFlows(t *testing.T) { testManyFlows(t, flowsAtOnce*3+500) }
