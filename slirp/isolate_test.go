package slirp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/nftables"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
)

func TestWallPlan(t *testing.T) {
	app := func(index int, name string, groups, reaches string) *Endpoint {
		return &Endpoint{index: index, name: name, aliases: []string{name + "-alias"}, groups: strings.Fields(groups), reaches: newNames("shop").namesOf(strings.Fields(reaches))}
	}
	alone := func(apps ...*Endpoint) []*Endpoint {
		for _, e := range apps {
			e.isolate = true
		}
		return apps
	}
	for _, c := range []struct {
		name string
		apps []*Endpoint
		want string
	}{
		{"nothing said", []*Endpoint{app(1, "web", "", ""), app(2, "db", "", "")}, "1>2 2>1"},
		{"isolated", alone(app(1, "web", "", "db"), app(2, "db", "", ""), app(3, "x", "", "")), "1>2"},
		{"by alias and in capitals", alone(app(1, "web", "", "DB-alias"), app(2, "db", "", "")), "1>2"},
		{"by its full name", alone(app(1, "web", "", "db.Shop."), app(2, "db", "", "")), "1>2"},
		{"by the name on another network", alone(app(1, "web", "", "db.house"), app(2, "db", "", "")), ""},
		{"both ways", alone(app(1, "web", "", "db"), app(2, "db", "", "web")), "1>2 2>1"},
		{"named but absent", alone(app(1, "web", "", "db")), ""},
		{"groups", []*Endpoint{app(1, "web", "front", ""), app(2, "api", "front back", ""), app(3, "db", "back", "")}, "1>2 2>1 2>3 3>2"},
		{"no group is default", []*Endpoint{app(1, "web", "", ""), app(2, "api", "default", ""), app(3, "db", "back", "")}, "1>2 2>1"},
		{"both: groups bound links", alone(app(1, "web", "front", "api db"), app(2, "api", "front back", "db"), app(3, "db", "back", "")), "1>2 2>3"},
		{"one of two is isolated", append(alone(app(1, "web", "", "")), app(2, "tool", "", "web"), app(3, "x", "", "")), "2>1 2>3 3>2"},
		{"nobody", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, p := range wallPlan(c.apps) {
				got = append(got, fmt.Sprintf("%d>%d", p.from, p.to))
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %q, want %q", s, c.want)
			}
		})
	}
}

func TestWallDiff(t *testing.T) {
	a, b, c := linkPair{1, 2}, linkPair{2, 1}, linkPair{1, 3}
	add, remove := wallDiff(map[linkPair]bool{a: true, b: true}, []linkPair{a, c})
	if !reflect.DeepEqual(add, []linkPair{c}) || !reflect.DeepEqual(remove, []linkPair{b}) {
		t.Errorf("add %v, remove %v; want %v and %v", add, remove, c, b)
	}
}

// attach is newSandbox with groups and reaches.
func attach(t *testing.T, n *Network, a AttachOptions) (*namespace, *Endpoint) {
	t.Helper()
	ns := newNamespace(t)
	a.NetNS = ns.fd
	e, err := n.Attach(context.Background(), a)
	if err != nil {
		t.Fatalf("attaching %q: %v", a.Name, err)
	}
	t.Cleanup(func() { e.Close() })
	return ns, e
}

// reachesTCP says how a connection to another sandbox ends: nil, or the app's errno.
func reachesTCP(from *namespace, to string) error {
	c, err := from.dial("tcp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

func reachesUDP(from *namespace, to string) error {
	c, err := from.dial("udp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

// served is a sandbox that echoes on one port of every kind.
type served struct {
	*namespace
	*Endpoint
	port int
}

func serveEcho(ns *namespace, e *Endpoint) served {
	const port = 7
	for _, a := range []any{e.IPv4(), e.IPv6()} {
		ns.echoTCP("tcp", at(a, port))
		ns.echoUDP("udp", at(a, port))
	}
	return served{ns, e, port}
}

// check wants from to reach to or, by each protocol and family, to be told at once that it may not.
func (from served) check(t *testing.T, to served, want bool) {
	t.Helper()
	for _, a := range []any{to.IPv4(), to.IPv6()} {
		start := time.Now()
		tcp, udp := reachesTCP(from.namespace, at(a, to.port)), reachesUDP(from.namespace, at(a, to.port))
		if want {
			if tcp != nil || udp != nil {
				t.Errorf("%s to %s at %v: tcp: %v, udp: %v; want it to be reached", from.name, to.name, a, tcp, udp)
			}
			continue
		}
		if !errors.Is(tcp, unix.ECONNREFUSED) {
			t.Errorf("%s to %s at %v: tcp: %v, want it refused", from.name, to.name, a, tcp)
		}
		if !errors.Is(udp, unix.EHOSTUNREACH) && !errors.Is(udp, unix.EACCES) {
			t.Errorf("%s to %s at %v: udp: %v, want it prohibited", from.name, to.name, a, udp)
		}
		if d := time.Since(start); d > 4*time.Second { // a dial that hangs takes 5
			t.Errorf("%s to %s at %v: told after %v", from.name, to.name, a, d)
		}
	}
}

func TestIsolatedSandboxesReachOnlyWhatTheyName(t *testing.T) {
	n := newNetwork(t)
	web := serveEcho(attach(t, n, AttachOptions{Name: "web", Isolate: true, Reaches: []string{"db"}})) // db comes later
	other := serveEcho(attach(t, n, AttachOptions{Name: "other", Isolate: true}))
	db := serveEcho(attach(t, n, AttachOptions{Name: "db", Isolate: true}))
	web.check(t, db, true)
	db.check(t, web, false)
	web.check(t, other, false)
	other.check(t, db, false)
	// A reply is one only where its opposite may be opened: that there is a connection between the two changes nothing.
	web.mustDial("tcp", at(db.IPv4(), db.port))
	db.check(t, web, false)
}

func TestGroups(t *testing.T) {
	n := newNetwork(t)
	early := serveEcho(attach(t, n, AttachOptions{Name: "early"}))
	late := serveEcho(attach(t, n, AttachOptions{Name: "late"}))
	held := early.mustDial("tcp", at(late.IPv4(), late.port))
	roundTrip(t, held, []byte("before there is a wall"))
	if n.wall != nil {
		t.Error("nobody asked for a wall, and there is one")
	}
	web := serveEcho(attach(t, n, AttachOptions{Name: "web", Groups: []string{"front"}}))
	api := serveEcho(attach(t, n, AttachOptions{Name: "api", Groups: []string{"front", "back"}}))
	db := serveEcho(attach(t, n, AttachOptions{Name: "db", Groups: []string{"back"}}))
	roundTrip(t, held, []byte("after"))
	for _, c := range []struct {
		from, to served
		want     bool
	}{
		{web, api, true}, {api, web, true}, {api, db, true}, {db, api, true},
		{web, db, false}, {db, web, false}, {early, web, false}, {web, early, false}, {early, late, true}, {late, early, true},
	} {
		c.from.check(t, c.to, c.want)
	}
}

func TestWhatLeavesAnIsolatedNetwork(t *testing.T) {
	inet := internet(t)
	n := newNetwork(t)
	app, e := attach(t, n, AttachOptions{Name: "web", Isolate: true})
	for _, a := range []string{inetV4, inetV6} {
		if err := reachesTCP(app, at(a, portOf(inet.echoTCP("tcp", at(a, 0))))); err != nil {
			t.Errorf("tcp to %s: %v", a, err)
		}
		if err := reachesUDP(app, at(a, portOf(inet.echoUDP("udp", at(a, 0))))); err != nil {
			t.Errorf("udp to %s: %v", a, err)
		}
	}
	s := serveEcho(app, e)
	for _, protocol := range []string{"tcp", "udp"} {
		p := publish(t, n, e, config.Port{App: uint16(s.port), Protocol: protocol})[0]
		c, err := net.Dial(protocol, p.HostAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Errorf("published %s port: %v", protocol, err)
		}
	}
}

// TestAnAddressThatIsUsedAgainOpensNothing has a sandbox take the address of one that another could reach.
func TestAnAddressThatIsUsedAgainOpensNothing(t *testing.T) {
	n := newNetwork(t)
	web := serveEcho(attach(t, n, AttachOptions{Name: "web", Isolate: true, Reaches: []string{"db"}}))
	db := serveEcho(attach(t, n, AttachOptions{Name: "db", Isolate: true}))
	web.check(t, db, true)
	was := db.IPv4()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	other := serveEcho(attach(t, n, AttachOptions{Name: "other", Isolate: true, IPv4: was}))
	web.check(t, other, false)
	other.check(t, web, false)
	if err := n.thread.do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		left, err := c.GetSetElements(n.wall.pairs)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d directions are open, want none: %v", len(left), left)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

func TestNamesOfSandboxesOutOfReach(t *testing.T) {
	n := newNetwork(t)
	web, _ := attach(t, n, AttachOptions{Name: "web", Isolate: true, Aliases: []string{"both"}, Reaches: []string{"db"}})
	db, e := attach(t, n, AttachOptions{Name: "db", Isolate: true, Aliases: []string{"both"}})
	w := n.endpointNamed("web")
	reverse := func(e *Endpoint) string {
		s, err := dns.ReverseAddr(e.IPv4().String())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		from *namespace
		name string
		kind uint16
		want string
	}{
		{web, "db", dns.TypeA, "NOERROR, A " + e.IPv4().String()},
		{web, "db.shop", dns.TypeAAAA, "NOERROR, AAAA " + e.IPv6().String()},
		{web, reverse(e), dns.TypePTR, "NOERROR, PTR db.shop."},
		{web, "both", dns.TypeA, "NOERROR, A " + w.IPv4().String() + ", A " + e.IPv4().String()},
		{db, "db", dns.TypeA, "NOERROR, A " + e.IPv4().String()},
		{db, "web", dns.TypeA, "NXDOMAIN"},
		{db, "web.shop", dns.TypeAAAA, "NXDOMAIN"},
		{db, "web", dns.TypeMX, "NXDOMAIN"},
		{db, reverse(w), dns.TypePTR, "NXDOMAIN"},
		{db, "both", dns.TypeA, "NOERROR, A " + e.IPv4().String()},
	} {
		if got := said(ask(t, c.from, n, "udp4", c.name, c.kind)); got != c.want {
			t.Errorf("%s %s: got %q, want %q", c.name, dns.TypeToString[c.kind], got, c.want)
		}
	}
}

// TestIsolationFailsClosed takes nftables away from the router's thread.
func TestIsolationFailsClosed(t *testing.T) {
	n := newNetwork(t)
	if err := n.thread.do(denyNetfilter); err != nil {
		t.Fatal(err)
	}
	ns := newNamespace(t)
	if e, err := n.Attach(context.Background(), AttachOptions{NetNS: ns.fd, Name: "plain"}); err != nil {
		t.Errorf("without isolation: %v", err)
	} else {
		defer e.Close()
	}
	e, err := n.Attach(context.Background(), AttachOptions{NetNS: newNamespace(t).fd, Name: "web", Groups: []string{"front"}})
	if err == nil {
		e.Close()
		t.Fatal("a sandbox has joined that nothing keeps apart")
	}
	fault, ok := errors.AsType[*IsolationError](err)
	if !ok || !strings.Contains(err.Error(), "nf_tables is missing") || strings.Contains(err.Error(), "\n") || !strings.Contains(fault.Hint(), "modprobe") {
		t.Errorf("got %q, want an IsolationError of one line that says what is missing", err)
	}
}

// denyNetfilter has the calling thread's kernel be one without nfnetlink (seccomp(2)).
func denyNetfilter() error {
	const nr, protocol = 0, 16 + 2*8 // struct seccomp_data: nr, and the low half of args[2] on a little-endian machine
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nr},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 3, K: unix.SYS_SOCKET},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: protocol},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.NETLINK_NETFILTER},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPROTONOSUPPORT)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return errno
	}
	return nil
}
