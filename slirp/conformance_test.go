package slirp

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
)

// The conformance test runs one table of TCP conversations over every way that whisk carries TCP, and over a plain router
// of the kernel's, which is the measure: each side writes down what it saw, and the accounts must be the same.
//
//	carrier     client        between                      server
//	direct      a namespace   the kernel routes            the internet
//	fast path   a sandbox     whisk, the kernel's TCP      the internet
//	netstack    a sandbox     whisk, the user-mode stack   the internet
//	published   the host      a published port             a sandbox

// patience bounds each wait of a conversation; what takes longer is told as "nothing happens".
const patience = 20 * time.Second

// carrier is one way from a client to a server.
type carrier struct {
	name   string
	client *namespace
	server *namespace
	// address returns what the client dials to reach a listener of the server's.
	address func(t *testing.T, remote string, l net.Addr) string
}

// trial is one conversation over one carrier.
type trial struct {
	t      *testing.T
	over   carrier
	remote string // address that the server listens on: its family is the trial's

	mu             sync.Mutex
	client, server []string // what they saw
}

func (r *trial) note(side *[]string, format string, a ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*side = append(*side, fmt.Sprintf(format, a...))
}

func (r *trial) account() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, s := range r.client {
		fmt.Fprintf(&b, "client %s\n", s)
	}
	for _, s := range r.server {
		fmt.Fprintf(&b, "server %s\n", s)
	}
	return b.String()
}

// six reports whether the trial is over IPv6.
func (r *trial) six() bool { return strings.Contains(r.remote, ":") }

// pick returns the address of the trial's family.
func (r *trial) pick(v4, v6 string) string {
	if r.six() {
		return v6
	}
	return v4
}

// side is one end of a connection that writes down what it sees.
type side struct {
	*net.TCPConn
	trial *trial
	log   *[]string
}

func (s *side) saw(format string, a ...any) { s.trial.note(s.log, format, a...) }

// outcome names an error as a program sees it.
func outcome(err error) string {
	var errno unix.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, io.EOF):
		return "end"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "nothing happens"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

func (s *side) send(what string) {
	_, err := s.Write([]byte(what))
	s.saw("sends %q: %s", what, outcome(err))
}

// receive reads n bytes, or what there is before the stream ends or fails.
func (s *side) receive(n int) {
	b := make([]byte, n)
	m, err := io.ReadFull(s, b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	s.saw("receives %q: %s", b[:m], outcome(err))
}

// drain reads until the stream ends or fails, and returns how many bytes there were.
func (s *side) drain() {
	h := sha256.New()
	n, err := io.Copy(h, struct{ io.Reader }{s.TCPConn})
	if err == nil {
		err = io.EOF
	}
	s.saw("receives %d bytes, %s: %s", n, hex.EncodeToString(h.Sum(nil)[:4]), outcome(err))
}

// drainSome is drain where how much arrives is a matter of luck.
func (s *side) drainSome() {
	_, err := io.Copy(io.Discard, struct{ io.Reader }{s.TCPConn})
	if err == nil {
		err = io.EOF
	}
	s.saw("receives what there was: %s", outcome(err))
}

// pour sends n bytes of a known stream.
func (s *side) pour(n int64, seed byte) {
	h := sha256.New()
	m, err := io.Copy(io.MultiWriter(struct{ io.Writer }{s.TCPConn}, h), io.LimitReader(stream(seed), n))
	s.saw("sends %d bytes, %s: %s", m, hex.EncodeToString(h.Sum(nil)[:4]), outcome(err))
}

func (s *side) endSending() { s.saw("ends sending: %s", outcome(s.CloseWrite())) }

func (s *side) close() { s.saw("closes: %s", outcome(s.Close())) }

func (s *side) abort() {
	_ = s.SetLinger(0)
	s.saw("resets: %s", outcome(s.Close()))
}

// control runs f on the socket.
func (s *side) control(f func(fd int)) {
	raw, err := s.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
	if err != nil {
		s.saw("has no socket any more: %v", err)
	}
}

// hangup waits for an error on the socket without reading from it.
func (s *side) hangup() {
	end := time.Now().Add(patience)
	for {
		var events int16
		s.control(func(fd int) {
			p := []unix.PollFd{{Fd: int32(fd)}}
			if n, err := unix.Poll(p, 0); n > 0 && err == nil {
				events = p[0].Revents
			}
		})
		if events&unix.POLLERR != 0 {
			s.saw("is told of an error")
			return
		}
		if time.Now().After(end) {
			s.saw("is told of nothing")
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// fill sends until nothing goes any more, and returns how much went.
func (s *side) fill() int64 {
	var total int64
	src := stream(3)
	b := make([]byte, 256<<10)
	for {
		_, _ = src.Read(b)
		_ = s.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := s.Write(b)
		total += int64(n)
		if err != nil {
			s.saw("sends until %s", outcome(err))
			_ = s.SetWriteDeadline(time.Now().Add(patience))
			return total
		}
	}
}

// stream is an endless sequence of bytes that is the same for the same seed.
func stream(seed byte) io.Reader { return &counter{uint64(seed)*0x9e3779b97f4a7c15 + 1} }

type counter struct{ x uint64 }

func (c *counter) Read(b []byte) (int, error) {
	for i := range b {
		c.x ^= c.x << 13
		c.x ^= c.x >> 7
		c.x ^= c.x << 17
		b[i] = byte(c.x)
	}
	return len(b), nil
}

// listen opens the server's port with the given backlog, and returns what the client dials.
func (r *trial) listen(backlog int) (l *net.TCPListener, addr string) {
	r.t.Helper()
	l = r.over.server.listenBacklog(r.remote, backlog)
	_ = l.SetDeadline(time.Now().Add(2 * patience))
	return l, r.over.address(r.t, r.remote, l.Addr())
}

// dial connects, and returns nil if that fails.
func (r *trial) dial(addr string) *side {
	c, err := r.over.client.dialFor(patience, addr)
	r.note(&r.client, "connects: %s", outcome(err))
	if err != nil {
		return nil
	}
	return r.newSide(c.(*net.TCPConn), &r.client)
}

func (r *trial) newSide(c *net.TCPConn, log *[]string) *side {
	r.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return &side{c, r, log}
}

func (r *trial) accept(l *net.TCPListener) *side {
	c, err := l.AcceptTCP()
	if err != nil {
		r.t.Fatalf("%s: accepting: %v", r.over.name, err)
	}
	return r.newSide(c, &r.server)
}

// joined returns the two ends of a connection.
func (r *trial) joined() (client, server *side) {
	r.t.Helper()
	l, addr := r.listen(16)
	if client = r.dial(addr); client == nil {
		r.t.Fatalf("%s: no connection", r.over.name)
	}
	return client, r.accept(l)
}

func (ns *namespace) dialFor(d time.Duration, addr string) (c net.Conn, err error) {
	err = ns.do(func() error {
		dialer := net.Dialer{Timeout: d, KeepAlive: -1}
		c, err = dialer.Dial("tcp", addr)
		return err
	})
	return c, err
}

// listenBacklog listens with a backlog of its own, which package net has no word for.
func (ns *namespace) listenBacklog(ip string, backlog int) *net.TCPListener {
	ns.tb.Helper()
	a := netip.MustParseAddr(ip)
	family := unix.AF_INET6
	if a.Is4() {
		family = unix.AF_INET
	}
	var l net.Listener
	err := ns.do(func() error {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "listener")
		defer f.Close()
		if err := unix.Bind(fd, sockaddrOf(netip.AddrPortFrom(a, 0))); err != nil {
			return err
		}
		if err := unix.Listen(fd, backlog); err != nil {
			return err
		}
		l, err = net.FileListener(f)
		return err
	})
	if err != nil {
		ns.tb.Fatalf("listening on %s: %v", ip, err)
	}
	ns.tb.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// together runs both and waits.
func together(f, g func()) {
	var wg sync.WaitGroup
	wg.Go(f)
	g()
	wg.Wait()
}

// lan is a namespace whose way to the internet is the host as a plain router.
func lan(t *testing.T) *namespace {
	t.Helper()
	inet := internet(t)
	ns := newNamespace(t)
	const lan4, lan6, gw4, gw6 = "192.0.2.2", "2001:db8:1a::2", "192.0.2.1", "2001:db8:1a::1"
	err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan", MTU: 65535}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.fd)})
	if err != nil {
		t.Fatalf("making the reference's link: %v", err)
	}
	t.Cleanup(func() {
		if l, err := netlink.LinkByName("lan"); err == nil {
			_ = netlink.LinkDel(l)
		}
	})
	route := func(to, via string) error {
		r := &netlink.Route{Gw: net.ParseIP(via)}
		if to != "" {
			_, dst, err := net.ParseCIDR(to)
			if err != nil {
				return err
			}
			r.Dst = dst
		}
		return netlink.RouteReplace(r)
	}
	err = errors.Join(setUp("lan", gw4+"/24", gw6+"/64"), ns.do(func() error {
		return errors.Join(setUp("lo"), setUp("eth0", lan4+"/24", lan6+"/64"), route("", gw4), route("", gw6))
	}), inet.do(func() error { return errors.Join(route("192.0.2.0/24", hostV4), route("2001:db8:1a::/64", hostV6)) }))
	if err != nil {
		t.Fatalf("routing for the reference: %v", err)
	}
	for _, name := range []string{"ipv4/conf/lan/forwarding", "ipv4/conf/wan/forwarding", "ipv6/conf/all/forwarding"} {
		path := "/proc/sys/net/" + name
		if err := os.WriteFile(path, []byte("1"), 0); err != nil {
			t.Fatalf("forwarding for the reference: %v", err)
		}
		t.Cleanup(func() { _ = os.WriteFile(path, []byte("0"), 0) })
	}
	return ns
}

// closeOff makes destinations that the host cannot reach, each for another reason.
func closeOff(t *testing.T) {
	t.Helper()
	for dst, kind := range map[string]int{"203.0.114.0/24": unix.RTN_THROW, "2001:db8:dead::/48": unix.RTN_THROW, "2001:db8:f11::/48": unix.RTN_PROHIBIT} {
		_, to, err := net.ParseCIDR(dst)
		if err != nil {
			t.Fatal(err)
		}
		r := &netlink.Route{Dst: to, Type: kind}
		if err := netlink.RouteReplace(r); err != nil {
			t.Fatalf("closing %s: %v", dst, err)
		}
		t.Cleanup(func() { _ = netlink.RouteDel(r) })
	}
	// No default route either for what is thrown: the lookup goes on to the table "default", which is empty.
}

func sameAddress(t *testing.T, _ string, l net.Addr) string { return l.String() }

// TestConformance is for connections that leave a sandbox.
func TestConformance(t *testing.T) {
	inet := internet(t)
	closeOff(t)
	fast, _ := newSandbox(t, newNetwork(t), "web")
	slow, _ := newSandbox(t, newNetwork(t, func(c *Config) { c.NoFastPath = true; c.Name = "slow"; c.IPv4, c.IPv6 = ChoosePrefixes("slow", nil) }), "web")
	compare(t, slices.Concat(conversations(), reuses(), outbound(), handshakes()),
		carrier{"direct", lan(t), inet, sameAddress},
		carrier{"fast path", fast, inet, sameAddress},
		carrier{"netstack", slow, inet, sameAddress})
}

// TestConformanceOfGivingUp is for destinations that never answer, on a host that gives up soon.
func TestConformanceOfGivingUp(t *testing.T) {
	inet := internet(t)
	few := func() error {
		// Two SYNs, and 1 s and 2 s to wait for their answers. Kernels before 6.5 lack the second.
		_ = os.WriteFile("/proc/sys/net/ipv4/tcp_syn_linear_timeouts", []byte("0"), 0)
		return os.WriteFile("/proc/sys/net/ipv4/tcp_syn_retries", []byte("1"), 0)
	}
	before := readTries()
	t.Cleanup(func() { tryAs(before, readTries()) })
	if err := few(); err != nil {
		t.Fatal(err)
	}
	direct := lan(t)
	if err := direct.do(few); err != nil {
		t.Fatal(err)
	}
	fast, _ := newSandbox(t, newNetwork(t), "web")
	slow, _ := newSandbox(t, newNetwork(t, func(c *Config) { c.NoFastPath = true; c.Name = "slow"; c.IPv4, c.IPv6 = ChoosePrefixes("slow", nil) }), "web")
	compare(t, []conversation{{"nobody answers", func(r *trial) {
		to := at(r.remote, 7)
		r.over.server.meetSYNs(r.t, r.over.name, netip.MustParseAddrPort(to), &expr.Verdict{Kind: expr.VerdictDrop})
		begun := time.Now()
		r.dial(to)
		took := time.Since(begun)
		r.note(&r.client, "takes its time: %v", took > 2500*time.Millisecond && took < 10*time.Second)
	}, "connects: ETIMEDOUT\nclient takes its time: true"}},
		carrier{"direct", direct, inet, sameAddress},
		carrier{"fast path", fast, inet, sameAddress},
		carrier{"netstack", slow, inet, sameAddress})
}

// TestPublishedConformance is for connections that come to a sandbox through a published port.
func TestPublishedConformance(t *testing.T) {
	inet := internet(t)
	n := newNetwork(t)
	app, e := newSandbox(t, n, "web")
	// A sandbox of its own: the same free port on another address of one would be another app.
	inner, innerEnd := newSandbox(t, n, "inner")
	host := &namespace{t, mustHostNS(t)}
	through := func(e *Endpoint, ip4, ip6 string) func(*testing.T, string, net.Addr) string {
		return func(t *testing.T, remote string, l net.Addr) string {
			ip := ip4
			if strings.Contains(remote, ":") {
				ip = ip6
			}
			p := publish(t, n, e, config.Port{HostIP: netip.MustParseAddr(ip), App: uint16(portOf(l)), Count: 1, Protocol: "tcp"})[0]
			t.Cleanup(func() { p.Close() })
			return p.HostAddr().String()
		}
	}
	compareAt(t, append(conversations(), reuses()...), map[string][2]string{
		"direct":                      {inetV4, inetV6},
		"published on loopback":       {e.IPv4().String(), e.IPv6().String()},
		"published, client's address": {e.IPv4().String(), e.IPv6().String()},
		"published, app on loopback":  {"127.0.0.1", "::1"},
	},
		carrier{"direct", host, inet, sameAddress},
		carrier{"published on loopback", host, app, through(e, "127.0.0.1", "::1")},
		carrier{"published, client's address", inet, app, through(e, hostV4, hostV6)},
		carrier{"published, app on loopback", host, inner, through(innerEnd, "127.0.0.1", "::1")})
}

func compare(t *testing.T, all []conversation, carriers ...carrier) {
	at := make(map[string][2]string)
	for _, c := range carriers {
		at[c.name] = [2]string{inetV4, inetV6}
	}
	compareAt(t, all, at, carriers...)
}

// compareAt runs every conversation over all carriers at once, and compares with the first. at has the server's
// addresses for each carrier.
func compareAt(t *testing.T, all []conversation, at map[string][2]string, carriers ...carrier) {
	for i, family := range []string{"IPv4", "IPv6"} {
		for _, c := range all {
			t.Run(c.name+", "+family, func(t *testing.T) {
				t.Parallel() // most conversations wait
				accounts := make([]string, len(carriers))
				var wg sync.WaitGroup
				for k, over := range carriers {
					wg.Go(func() {
						// A subtest of its own, so that a side that fails ends its own trial only.
						t.Run(over.name, func(t *testing.T) {
							r := &trial{t: t, over: over, remote: at[over.name][i]}
							defer func() { accounts[k] = r.account() }()
							c.run(r)
						})
					})
				}
				wg.Wait()
				for k, got := range accounts[1:] {
					if got != accounts[0] {
						t.Errorf("over %s:\n%s\nover %s:\n%s", carriers[0].name, accounts[0], carriers[k+1].name, got)
					}
				}
				want, six, differ := strings.Cut(c.want, "|")
				if differ && family == "IPv6" {
					want = six
				}
				if !strings.Contains(accounts[0], want) {
					t.Errorf("the reference itself does not show %q:\n%s", want, accounts[0])
				}
			})
		}
	}
}
