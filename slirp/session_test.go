package slirp

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// closed is a socket that only ends.
type closed struct {
	net.Conn
	gone *bool
}

func (c closed) SyscallConn() (syscall.RawConn, error) { return nil, net.ErrClosed }
func (c closed) Close() error                          { *c.gone = true; return nil }

func TestSessionsHaveShares(t *testing.T) {
	from := func(host byte, port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, host}), port)
	}
	table := newSessions(8, 4, netip.AddrPort.Addr)
	gone := make(map[netip.AddrPort]*bool)
	put := func(k netip.AddrPort) *session {
		gone[k] = new(bool)
		s := newSession(closed{gone: gone[k]})
		if !table.put(k, s) {
			t.Fatal("not taken")
		}
		return s
	}
	put(from(1, 1))
	busy := put(from(2, 1))
	for port := range uint16(3) {
		put(from(2, 2+port))
	}
	busy.used.Add(1)
	put(from(2, 5)) // above its share
	if *gone[from(2, 1)] || !*gone[from(2, 2)] || *gone[from(1, 1)] {
		t.Errorf("the session of the source's that is idle for longest has not given way: %v", gone)
	}
	for port := range uint16(2) {
		put(from(1, 2+port))
	}
	put(from(3, 1)) // 4, 3 and 1: full
	put(from(4, 1))
	if *gone[from(1, 1)] || *gone[from(3, 1)] || !*gone[from(2, 3)] && !*gone[from(2, 1)] {
		t.Errorf("the source that has most has not given way: %v", gone)
	}
	if len(table.m) != 8 {
		t.Errorf("%d sessions", len(table.m))
	}
	table.endWhere(func(k netip.AddrPort) bool { return true }, "")
	if len(table.m) != 0 || len(table.queues) != 0 {
		t.Errorf("%d sessions and %d queues are left", len(table.m), len(table.queues))
	}
}

// TestNameServerHasShares opens more connections than one sandbox may have: another is answered all the same.
func TestNameServerHasShares(t *testing.T) {
	_, conf := serveZone(t)
	n := newNetwork(t, func(c *Config) { c.ResolvConf = conf })
	greedy, _ := newSandbox(t, n, "greedy")
	other, _ := newSandbox(t, n, "other")
	gw, _ := n.Gateway()
	closedAtOnce := 0
	var conns []net.Conn
	for range maxDNSConns/4 + 8 {
		conns = append(conns, greedy.mustDial("tcp", at(gw, portDNS)))
	}
	for _, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); err != nil && !isTimeout(err) {
			closedAtOnce++
		}
	}
	if closedAtOnce < 8 {
		t.Errorf("%d connections too many were closed, want 8", closedAtOnce)
	}
	if got := said(ask(t, other, n, "tcp4", "allowed.test", dns.TypeA)); got != "NOERROR, A "+sharedV4 {
		t.Errorf("another sandbox is answered %q", got)
	}
	n.dns.conns.mu.Lock()
	defer n.dns.conns.mu.Unlock()
	if n.dns.conns.taken > maxDNSConns/4+2 {
		t.Errorf("%d connections are held", n.dns.conns.taken)
	}
}

func isTimeout(err error) bool {
	late, ok := err.(net.Error)
	return ok && late.Timeout()
}
