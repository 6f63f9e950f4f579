package slirp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// flowsOf is a network's flows as they are told of.
type flowsOf struct {
	mu  sync.Mutex
	all []Flow
}

func (f *flowsOf) take(fl Flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, fl)
}

// await returns the flows to an address and port, when there is one.
func (f *flowsOf) await(t *testing.T, to string) []Flow {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		f.mu.Lock()
		var found []Flow
		for _, fl := range f.all {
			if fl.To.String() == to {
				found = append(found, fl)
			}
		}
		all := fmt.Sprintf("%+v", f.all)
		f.mu.Unlock()
		if len(found) > 0 {
			return found
		}
		if time.Now().After(end) {
			t.Fatalf("no flow to %s was told of, but %s", to, all)
		}
	}
}

// awaitLike waits for a flow that is like another, but for its times and source.
func (f *flowsOf) awaitLike(t *testing.T, want Flow) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		f.mu.Lock()
		found := slices.ContainsFunc(f.all, func(got Flow) bool {
			got.Began, got.Ended, got.Source = want.Began, want.Ended, want.Source
			return reflect.DeepEqual(got, want)
		})
		all := fmt.Sprintf("%+v", f.all)
		f.mu.Unlock()
		if found {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no flow is like %+v:\n%s", want, all)
		}
	}
}

// one is the only flow to an address and port, checked for what all have.
func (f *flowsOf) one(t *testing.T, to, app, protocol string) Flow {
	t.Helper()
	found := f.await(t, to)
	if len(found) != 1 {
		t.Fatalf("%d flows to %s, want 1: %+v", len(found), to, found)
	}
	fl := found[0]
	if fl.App != app || fl.Protocol != protocol || fl.Count != 1 {
		t.Errorf("flow to %s: got %+v, want app %q, protocol %q and count 1", to, fl, app, protocol)
	}
	if fl.Began.IsZero() || fl.Ended.Before(fl.Began) {
		t.Errorf("flow to %s: it began at %v and ended at %v", to, fl.Began, fl.Ended)
	}
	return fl
}

func TestEachFlowIsToldOfOnce(t *testing.T) {
	for name, userMode := range map[string]bool{"kernel": false, "netstack": true} {
		t.Run(name, func(t *testing.T) { testFlows(t, userMode) })
	}
}

func testFlows(t *testing.T, userMode bool) {
	inet := internet(t)
	var flows flowsOf
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver "+inetV4+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	upstream(t, inetV4, "198.51.100.1")
	n := newNetwork(t, func(c *Config) { c.OnFlow, c.NoFastPath, c.ResolvConf = flows.take, userMode, conf })
	app, e := newSandbox(t, n, "web")
	_, _ = newSandbox(t, n, "db")

	t.Run("TCP", func(t *testing.T) {
		for _, remote := range []string{inetV4, inetV6} {
			l := inet.listen("tcp", at(remote, 0))
			const sent, received = 3<<20 + 1, 777_777
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				_, _ = io.Copy(io.Discard, c)
				_, _ = c.Write(make([]byte, received))
			}()
			c := app.mustDial("tcp", l.Addr().String())
			if _, err := c.Write(make([]byte, sent)); err != nil {
				t.Fatal(err)
			}
			_ = c.(interface{ CloseWrite() error }).CloseWrite()
			if n, err := io.Copy(io.Discard, c); err != nil || n != received {
				t.Fatalf("read %d, %v", n, err)
			}
			f := flows.one(t, l.Addr().String(), "web", "tcp")
			if f.Sent != sent || f.Received != received || f.Denied || f.Why != "" || f.Name != "" {
				t.Errorf("got %+v, want %d bytes sent and %d received", f, sent, received)
			}
			if f.Source.String() != c.LocalAddr().String() {
				t.Errorf("source: got %s, want %s", f.Source, c.LocalAddr())
			}
		}
	})
	t.Run("reset in the middle", func(t *testing.T) {
		a := inet.echoTCP("tcp", at(inetV4, 0)).String()
		c := app.mustDial("tcp", a)
		roundTrip(t, c, make([]byte, 1000))
		_ = c.(interface{ SetLinger(int) error }).SetLinger(0)
		c.Close()
		if f := flows.one(t, a, "web", "tcp"); f.Sent != 1000 || f.Received != 1000 || f.Denied || f.Why != "" {
			t.Errorf("got %+v, want 1000 bytes each way", f)
		}
	})
	t.Run("refused", func(t *testing.T) {
		for _, remote := range []string{inetV4, inetV6} {
			if _, err := app.dial("tcp", at(remote, 9)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Fatalf("got %v, want refused", err)
			}
			if f := flows.one(t, at(remote, 9), "web", "tcp"); f.Denied || f.Why != "connection refused" || f.Sent+f.Received != 0 {
				t.Errorf("got %+v", f)
			}
		}
	})
	t.Run("unreachable", func(t *testing.T) {
		if _, err := app.dial("tcp", "203.0.113.129:80"); err == nil {
			t.Fatal("connected")
		}
		if f := flows.one(t, "203.0.113.129:80", "web", "tcp"); f.Denied || f.Why != "no route to host" {
			t.Errorf("got %+v", f)
		}
	})
	t.Run("denied", func(t *testing.T) {
		if _, err := app.dial("tcp", at(hostV4, 80)); err == nil {
			t.Fatal("connected")
		}
		if f := flows.one(t, at(hostV4, 80), "web", "tcp"); !f.Denied || f.Why == "" || f.Sent+f.Received != 0 {
			t.Errorf("TCP: got %+v", f)
		}
		c := app.mustDial("udp", at("169.254.169.254", 53))
		_, _ = c.Write([]byte("x"))
		if f := flows.one(t, "169.254.169.254:53", "web", "udp"); !f.Denied || f.Why == "" || f.Sent != 0 {
			t.Errorf("UDP: got %+v", f)
		}
		_, _ = ping(t, app, hostV6, 1, nil)
		if f := flows.one(t, at(hostV6, 0), "web", "icmp"); !f.Denied || f.Why == "" {
			t.Errorf("ping: got %+v", f)
		}
	})
	t.Run("name", func(t *testing.T) {
		// The test's name server says that every name is at 198.51.100.1 and up; .2 of them is there.
		if got := said(ask(t, app, n, "udp6", "big.Example.org", dns.TypeA)); !strings.Contains(got, "198.51.100.2") {
			t.Fatalf("answer: %s", got)
		}
		a := inet.echoTCP("tcp", at(inetV4, 0)).String()
		c := app.mustDial("tcp", a)
		roundTrip(t, c, []byte("hello"))
		c.Close()
		if f := flows.one(t, a, "web", "tcp"); f.Name != "big.example.org" {
			t.Errorf("got %+v, want the name that its DNS was asked for", f)
		}
		ask(t, app, n, "tcp4", "big.example.net", dns.TypeA)
		b := inet.echoTCP("tcp", at(inetV4, 0)).String()
		app.mustDial("tcp", b).Close()
		if f := flows.one(t, b, "web", "tcp"); f.Name != "big.example.net" || len(f.Also) != 1 || f.Also[0] != "big.example.org" {
			t.Errorf("got %+v, want both names, the last one first", f)
		}
		if names := n.endpointNamed("db").known.names(time.Now(), netip.MustParseAddr(inetV4)); len(names) > 0 {
			t.Errorf("another sandbox knows the address as %q, want by no name: it has not asked", names)
		}
	})
	t.Run("UDP and ping", func(t *testing.T) {
		echo, closed := inet.echoUDP("udp", at(inetV4, 0)).String(), at(inetV6, 10)
		c := app.mustDial("udp", echo)
		for _, size := range []int{0, 1, 1400, 9000} {
			_, _ = c.Write(make([]byte, size))
			if _, err := c.Read(make([]byte, 1<<16)); err != nil {
				t.Fatal(err)
			}
		}
		no := app.mustDial("udp", closed)
		_, _ = no.Write([]byte("xyz"))
		if _, err := no.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatalf("got %v, want refused", err)
		}
		data := bytes.Repeat([]byte("p"), 56)
		for _, to := range []string{inetV4, inetV6} {
			if _, err := ping(t, app, to, 1, data); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Close(); err != nil { // ends them all
			t.Fatal(err)
		}
		if f := flows.one(t, echo, "web", "udp"); f.Sent != 10401 || f.Received != 10401 || f.Denied || f.Why != "" {
			t.Errorf("UDP: got %+v, want 10401 bytes each way", f)
		}
		if f := flows.one(t, closed, "web", "udp"); f.Sent != 3 || f.Received != 0 || f.Why != "connection refused" {
			t.Errorf("UDP to a closed port: got %+v", f)
		}
		for _, to := range []string{inetV4, inetV6} {
			if f := flows.one(t, at(to, 0), "web", "icmp"); f.Sent != 56 || f.Received != 56 || f.Why != "" {
				t.Errorf("ping to %s: got %+v, want 56 bytes each way", to, f)
			}
		}
	})
}

func TestDeniedNamesAndHostsAreToldOf(t *testing.T) {
	inet := internet(t)
	var flows flowsOf
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver "+inetV6+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	upstream(t, inetV6, sharedV4)
	if err := publicAddresses(); err != nil {
		t.Fatal(err)
	}
	n := newNetwork(t, func(c *Config) { c.OnFlow, c.ResolvConf, c.Egress = flows.take, conf, "good.example" })
	app, e := newSandbox(t, n, "web")
	for range 3 {
		ask(t, app, n, "udp4", "bad.example", dns.TypeA)
	}
	if got := said(ask(t, app, n, "udp4", "good.example", dns.TypeA)); got != "NOERROR, A "+sharedV4 {
		t.Fatalf("good.example: got %s", got)
	}
	request := func(host string) (string, int) {
		request := "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
		a := inet.echoTCP("tcp", at(sharedV4, 0)).String()
		c := app.mustDial("tcp", a)
		_, _ = io.WriteString(c, request)
		_, _ = io.ReadFull(c, make([]byte, len(request)))
		c.Close()
		return a, len(request)
	}
	lie, _ := request("bad.example")
	if f := flows.one(t, lie, "web", "tcp"); !f.Denied || f.Name != "good.example" || !strings.Contains(f.Why, "bad.example") {
		t.Errorf("a request for another host: got %+v", f)
	}
	honest, size := request("good.example")
	if f := flows.one(t, honest, "web", "tcp"); f.Denied || f.Name != "good.example" || f.Sent != int64(size) || f.Received != int64(size) {
		t.Errorf("a request for the host that is allowed: got %+v, want %d bytes each way", f, size)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	n.flowlog.close() // tells what is held back
	asked := 0
	for _, f := range flows.await(t, netip.AddrPort{}.String()) {
		if f.Protocol != "dns" || f.Name != "bad.example" || f.App != "web" || !f.Denied || f.Why == "" {
			t.Errorf("got %+v", f)
		}
		asked += f.Count
	}
	if asked != 3 {
		t.Errorf("%d questions for bad.example were told of, want 3", asked)
	}
}

func TestClosingTellsOfOpenFlows(t *testing.T) {
	inet := internet(t)
	var flows flowsOf
	n := newNetwork(t, func(c *Config) { c.OnFlow = flows.take })
	app, _ := newSandbox(t, n, "web")
	tcp, udp := inet.echoTCP("tcp", at(inetV4, 0)).String(), inet.echoUDP("udp", at(inetV4, 0)).String()
	for network, a := range map[string]string{"tcp": tcp, "udp": udp} {
		roundTrip(t, app.mustDial(network, a), []byte("hello"))
	}
	for range 5 {
		_, _ = app.dial("tcp", at(hostV4, 1))
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	flows.mu.Lock()
	defer flows.mu.Unlock()
	denied := 0
	got := map[string]Flow{}
	for _, f := range flows.all {
		got[f.To.String()] = f
		if f.Denied {
			denied += f.Count
		}
	}
	for _, a := range []string{tcp, udp} {
		if f := got[a]; f.Sent != 5 || f.Received != 5 {
			t.Errorf("flow to %s: got %+v, want it told of with 5 bytes each way", a, f)
		}
	}
	if denied != 5 {
		t.Errorf("%d flows denied, want 5: %+v", denied, flows.all)
	}
}

func TestRepeatedRefusalsAreCounted(t *testing.T) {
	var flows flowsOf
	r := repeats{tell: flows.take}
	for i := range 1000 {
		port := uint16(1)
		if i%2 == 0 {
			port = uint16(i)
		}
		f := Flow{App: "web", Protocol: "tcp", To: netip.AddrPortFrom(netip.MustParseAddr(inetV4), port), Denied: true, Why: "egress is none", Count: 1}
		f.Began = time.Unix(int64(i), 0)
		f.Ended = f.Began
		r.add(f)
		f.App, f.To = "db", netip.AddrPortFrom(f.To.Addr(), 9)
		r.add(f)
	}
	r.close()
	count, lines := map[string]int{}, map[string]int{}
	var sum *Flow
	for _, f := range flows.all {
		count[f.App] += f.Count
		lines[f.App]++
		if f.App == "web" && !f.To.IsValid() {
			sum = &f
		}
	}
	if count["web"] != 1000 || count["db"] != 1000 {
		t.Errorf("flows told of: %v, want 1000 of each", count)
	}
	// web: maxRefusals kinds, the repeats of one of them, and the sum of the others; db: one and its repeats.
	if lines["web"] != maxRefusals+2 || lines["db"] != 2 {
		t.Errorf("told of in %v, want %d and 2", lines, maxRefusals+2)
	}
	if sum == nil || sum.Count != 1000-500-(maxRefusals-1) || !strings.Contains(sum.Why, "destinations") {
		t.Errorf("sum of the others: got %+v", sum)
	}
	if sum != nil && (!sum.Began.Before(sum.Ended) || sum.Ended != time.Unix(998, 0)) {
		t.Errorf("the sum spans %v to %v", sum.Began, sum.Ended)
	}

	flows.all = nil
	r.add(Flow{App: "web", Count: 1})
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		r.mu.Lock()
		open := r.timer != nil
		r.mu.Unlock()
		if !open {
			break
		}
	}
	r.add(Flow{App: "web", Count: 1})
	if len(flows.all) != 2 {
		t.Errorf("a window later: told of %d, want both", len(flows.all))
	}
	r.close()
}
