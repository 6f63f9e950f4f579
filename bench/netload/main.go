// Netload makes the connections that bench/network counts and times: an echo server, and clients that check every
// byte that comes back. It says what it saw in one line of JSON on stdout; what it could not do at all, on stderr.
//
//	netload serve ADDR…             echo TCP on these addresses until killed
//	netload latency -n N ADDR       N connections in a row: time until connected, and until one byte is back
//	netload refused -n N ADDR       N connections in a row to a closed port: time until refused
//	netload row -n N ADDR           N connections in a row, each with bytes of its own that are checked
//	netload hold -n N ADDR          N connections at once, each checked when all are open, and again before all are closed
//	netload hostfwd SOCKET HOST APP ask slirp4netns, by its API socket, to forward a port of 127.0.0.1
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// patience is how long a connection may take before it counts as failed.
const patience = 20 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "netload:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("a command is missing: serve, latency, refused, row, hold or hostfwd")
	}
	flags := flag.NewFlagSet("netload "+args[0], flag.ExitOnError)
	n := flags.Int("n", 1000, "number of connections")
	_ = flags.Parse(args[1:]) // exits by itself
	rest := flags.Args()
	want := map[string]int{"latency": 1, "refused": 1, "row": 1, "hold": 1, "hostfwd": 3}[args[0]]
	if want != 0 && len(rest) != want || args[0] == "serve" && len(rest) == 0 {
		return fmt.Errorf("%s: wrong number of arguments: %q", args[0], rest)
	}
	if *n < 1 {
		return fmt.Errorf("%s: -n %d: must be at least 1", args[0], *n)
	}
	switch args[0] {
	case "serve":
		return serve(rest)
	case "latency":
		return latency(*n, rest[0])
	case "refused":
		return refused(*n, rest[0])
	case "row":
		return row(*n, rest[0])
	case "hold":
		return hold(*n, rest[0])
	case "hostfwd":
		return hostfwd(rest[0], rest[1], rest[2])
	}
	return fmt.Errorf("unknown command %q", args[0])
}

func serve(addrs []string) error {
	failed := make(chan error)
	for _, addr := range addrs {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		go func() { failed <- echo(l) }()
	}
	return <-failed
}

func echo(l net.Listener) error {
	for {
		c, err := l.Accept()
		if errors.Is(err, syscall.EMFILE) {
			time.Sleep(10 * time.Millisecond) // a descriptor may come back
			continue
		}
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c) // a client that resets is the client's to report
		}()
	}
}

// times is a row of durations, printed as milliseconds.
type times []time.Duration

func (t times) at(p float64) float64 {
	i := min(int(p*float64(len(t))), len(t)-1)
	return float64(t[i].Microseconds()) / 1000
}

func latency(n int, addr string) error {
	var connect, first times
	one := make([]byte, 1)
	for range n {
		start := time.Now()
		c, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			return err
		}
		connect = append(connect, time.Since(start))
		_ = c.SetDeadline(start.Add(patience))
		_, err = c.Write(one)
		if err == nil {
			_, err = io.ReadFull(c, one)
		}
		c.Close()
		if err != nil {
			return fmt.Errorf("echo of one byte: %w", err)
		}
		first = append(first, time.Since(start))
	}
	slices.Sort(connect)
	slices.Sort(first)
	return print(map[string]any{"n": n, "p50": connect.at(0.5), "p99": connect.at(0.99), "first50": first.at(0.5), "first99": first.at(0.99)})
}

func refused(n int, addr string) error {
	var took times
	for range n {
		start := time.Now()
		c, err := net.DialTimeout("tcp", addr, patience)
		if err == nil {
			c.Close()
			return fmt.Errorf("dialling %s: connected, want refused", addr)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("want refused: %w", err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return print(map[string]any{"n": n, "p50": took.at(0.5), "p99": took.at(0.99), "max": took.at(1)})
}

// tally counts how connections went. It may be used by several goroutines.
type tally struct {
	mu     sync.Mutex
	good   int
	wrong  int // bytes that differ from what was sent, or are missing
	failed int
	first  error
}

func (t *tally) add(wrong int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil:
		t.failed++
		if t.first == nil {
			t.first = err
		}
	case wrong > 0:
		t.wrong += wrong
	default:
		t.good++
	}
}

func (t *tally) print(n int, start time.Time) error {
	first := ""
	if t.first != nil {
		first = t.first.Error()
	}
	return print(map[string]any{"n": n, "good": t.good, "wrong_bytes": t.wrong, "failed": t.failed, "first_error": first, "seconds": time.Since(start).Seconds()})
}

// payload is what the connection of this number sends: no two are alike, so bytes of another connection are seen.
func payload(number uint64) []byte {
	r := rand.New(rand.NewPCG(number, 1))
	b := make([]byte, 1024)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// exchange sends the payload of this number and counts the bytes that come back wrong.
func exchange(c net.Conn, number uint64) (wrong int, err error) {
	_ = c.SetDeadline(time.Now().Add(patience))
	want := payload(number)
	if _, err := c.Write(want); err != nil {
		return 0, err
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil {
		return 0, err
	}
	return differ(got, want), nil
}

func differ(a, b []byte) (n int) {
	if bytes.Equal(a, b) {
		return 0
	}
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

func row(n int, addr string) error {
	var t tally
	start := time.Now()
	for i := range n {
		t.add(oneInRow(addr, uint64(i)))
	}
	return t.print(n, start)
}

// oneInRow closes its side after the answer and waits for the end of the stream: whatever follows the echo is wrong.
func oneInRow(addr string, number uint64) (wrong int, err error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if wrong, err = exchange(c, number); err != nil {
		return 0, err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, err
	}
	extra, err := io.Copy(io.Discard, c)
	return wrong + int(extra), err
}

func hold(n int, addr string) error {
	const making = 32 // connections in the making at once
	var t tally
	start := time.Now()
	conns := make([]net.Conn, n)
	each := func(f func(i int) error) {
		var wg sync.WaitGroup
		turn := make(chan struct{}, making)
		for i := range conns {
			turn <- struct{}{}
			wg.Go(func() {
				defer func() { <-turn }()
				if err := f(i); err != nil {
					t.add(0, err)
					if conns[i] != nil {
						conns[i].Close()
						conns[i] = nil
					}
				}
			})
		}
		wg.Wait()
	}
	each(func(i int) (err error) {
		conns[i], err = net.DialTimeout("tcp", addr, patience)
		return err
	})
	wrong := make([]int, n)
	for turn := range 2 {
		each(func(i int) error {
			if conns[i] == nil {
				return nil // counted already
			}
			w, err := exchange(conns[i], uint64(turn*n+i))
			wrong[i] += w
			return err
		})
	}
	for i, c := range conns {
		if c != nil {
			t.add(wrong[i], c.Close())
		}
	}
	return t.print(n, start)
}

func hostfwd(socket, hostPort, appPort string) error {
	host, err := strconv.ParseUint(hostPort, 10, 16)
	if err != nil {
		return fmt.Errorf("host port: %w", err)
	}
	app, err := strconv.ParseUint(appPort, 10, 16)
	if err != nil {
		return fmt.Errorf("app port: %w", err)
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	request := map[string]any{"execute": "add_hostfwd", "arguments": map[string]any{"proto": "tcp", "host_addr": "127.0.0.1", "host_port": host, "guest_port": app}}
	if err := json.NewEncoder(c).Encode(request); err != nil {
		return err
	}
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		return err
	}
	var answer struct {
		Error *struct{ Desc string }
	}
	if err := json.NewDecoder(c).Decode(&answer); err != nil {
		return fmt.Errorf("reading slirp4netns' answer: %w", err)
	}
	if answer.Error != nil {
		return fmt.Errorf("slirp4netns: %s", answer.Error.Desc)
	}
	return nil
}

func print(v any) error {
	return json.NewEncoder(os.Stdout).Encode(v)
}
