package slirp

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// The internet of these tests has public addresses too, since only those can belong to names.
const (
	sharedV4, sharedV6 = "8.0.0.1", "2600::1" // allowed.test and other.test
	otherV4            = "8.0.0.2"
	wildV4             = "8.0.0.4"

	// Where clouds answer about machines and their accounts.
	azureV4    = "168.63.129.16"
	metadataV6 = "fd00:ec2::254"
)

var publicAddresses = sync.OnceValue(func() error {
	fd, err := world()
	if err != nil {
		return err
	}
	ns := &namespace{fd: fd}
	return ns.do(func() error {
		return setUp("lo", sharedV4+"/32", otherV4+"/32", wildV4+"/32", "169.254.169.254/32", azureV4+"/32", "10.99.0.1/32", sharedV6+"/128", metadataV6+"/128")
	})
})

// zone is the test's name server, which remembers what it was asked.
type zone struct {
	mu    sync.Mutex
	asked []string
}

func (z *zone) questions() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.asked)
}

func (z *zone) answer(w dns.ResponseWriter, q *dns.Msg) {
	question := q.Question[0]
	z.mu.Lock()
	z.asked = append(z.asked, question.Name)
	z.mu.Unlock()
	m := new(dns.Msg)
	m.SetReply(q)
	n := question.Name
	lines := map[string][]string{
		"allowed.test.":  {n + " 1 A " + sharedV4, n + " 1 AAAA " + sharedV6, n + ` 1 HTTPS 1 . alpn="h3" ech="AAAA"`, n + " 1 TXT hello"},
		"other.test.":    {n + " 1 A " + sharedV4, n + " 1 AAAA " + sharedV6},
		"denied.test.":   {n + " 1 A " + otherV4},
		"alias.test.":    {n + " 1 CNAME a.cdn.test.", "a.cdn.test. 1 A " + otherV4, "evil.test. 1 A " + wildV4},
		"rebind.test.":   {n + " 1 A 127.0.0.1", n + " 1 A 169.254.169.254", n + " 1 A " + hostV4, n + " 1 A 10.99.0.1", n + " 1 A 0.0.0.0", n + " 1 A " + sharedV4},
		"rebind6.test.":  {n + " 1 AAAA ::1", n + " 1 AAAA ::ffff:127.0.0.1", n + " 1 AAAA fd00:ec2::254", n + " 1 AAAA fe80::1", n + " 1 AAAA " + hostV6, n + " 1 AAAA 64:ff9b::a9fe:a9fe"},
		"internal.test.": {n + " 1 A 10.99.0.1"},
	}[strings.ToLower(n)]
	if strings.HasSuffix(n, ".wild.test.") {
		lines = []string{n + " 1 A " + wildV4}
	}
	if lines == nil {
		m.Rcode = dns.RcodeNameError
	}
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		if err != nil {
			panic(err)
		}
		if rr.Header().Rrtype == question.Qtype || rr.Header().Rrtype == dns.TypeCNAME || !strings.EqualFold(rr.Header().Name, n) {
			m.Answer = append(m.Answer, rr)
		}
	}
	_ = w.WriteMsg(m)
}

// serveZone serves the zone to the test's host, and returns its resolv.conf.
func serveZone(t *testing.T) (*zone, string) {
	t.Helper()
	inet := internet(t)
	if err := publicAddresses(); err != nil {
		t.Fatalf("giving the test's internet public addresses: %v", err)
	}
	z := &zone{}
	for _, s := range []*dns.Server{
		{PacketConn: inet.listenPacket("udp", at(inetV4, 53)), Handler: dns.HandlerFunc(z.answer)},
		{Listener: inet.listen("tcp", at(inetV4, 53)), Handler: dns.HandlerFunc(z.answer)},
	} {
		go func() { _ = s.ActivateAndServe() }()
	}
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver "+inetV4+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return z, conf
}

// denials is a log that keeps what was denied.
type denials struct {
	mu   sync.Mutex
	text bytes.Buffer

	flows flowsOf // what the user's log is told
}

// inEgressLog asserts that the user's log tells of a denial.
func (d *denials) inEgressLog(t *testing.T, protocol, to string) {
	t.Helper()
	d.flows.awaitDenied(t, protocol, to, "")
}

func (d *denials) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.Write(b)
}

// about returns the lines that deny what holds all of the words.
func (d *denials) about(words ...string) (lines []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
lines:
	for line := range strings.Lines(d.text.String()) {
		for _, w := range append(words, "denied") {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// restricted is a sandbox with a policy of its own, on a network with the other carriage of TCP if slow.
func restricted(t *testing.T, egress, conf string, slow bool) (*namespace, *Network, *denials) {
	t.Helper()
	log := &denials{}
	n := newNetwork(t, func(c *Config) {
		c.ResolvConf, c.NoFastPath = conf, slow
		c.OnFlow = log.flows.take
		c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("log of the network:\n" + log.text.String())
		}
	})
	ns := newNamespace(t)
	e, err := n.Attach(context.Background(), AttachOptions{NetNS: ns.fd, Name: "app", Egress: egress})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return ns, n, log
}

// refused asserts that a connection is reset, at once or after its first bytes, with a line in the log.
func refused(t *testing.T, ns *namespace, log *denials, addr string, say []byte, words ...string) {
	t.Helper()
	c, err := ns.dial("tcp", addr)
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = c.Write(say)
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("connection to %s saying %.40q: got %v, want it reset", addr, say, err)
	}
	if len(log.about(words...)) == 0 {
		t.Errorf("connection to %s saying %.40q: nothing is logged about %q", addr, say, words)
	}
	log.inEgressLog(t, "tcp", addr)
}

// prohibitedUDP asserts that a datagram is answered administratively prohibited.
func prohibitedUDP(t *testing.T, ns *namespace, log *denials, addr string, words ...string) {
	t.Helper()
	c := ns.mustDial("udp", addr)
	_, _ = c.Write([]byte("x"))
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) {
		t.Errorf("datagram to %s: got %v, want it prohibited", addr, err)
	}
	if len(log.about(words...)) == 0 {
		t.Errorf("datagram to %s: nothing is logged about %q", addr, words)
	}
	log.inEgressLog(t, "udp", addr)
}

func webRequest(host string) []byte {
	return []byte("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
}

func TestEgressByName(t *testing.T) {
	for _, slow := range []bool{false, true} {
		t.Run(map[bool]string{false: "kernel", true: "netstack"}[slow], func(t *testing.T) { testEgressByName(t, slow) })
	}
}

func testEgressByName(t *testing.T, slow bool) {
	_, conf := serveZone(t)
	inet := internet(t)
	for _, a := range []string{sharedV4, sharedV6, otherV4} {
		for _, port := range []int{80, 443, 5432} {
			inet.echoTCP("tcp", at(a, port))
		}
	}
	for _, a := range []string{sharedV4, sharedV6} {
		for _, port := range []int{443, 5000} {
			inet.echoUDP("udp", at(a, port))
		}
	}
	app, n, log := restricted(t, "allowed.test,denied.test:1", conf, slow)
	hello := func(name string) []byte {
		return clientHello(t, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	}

	refused(t, app, log, at(sharedV4, 443), hello("allowed.test"), sharedV4, "no rule allows this address")
	refused(t, app, log, at(sharedV6, 443), hello("allowed.test"), sharedV6, "no rule allows this address")

	if got := said(ask(t, app, n, "udp4", "Allowed.Test", dns.TypeA)); got != "NOERROR, A "+sharedV4 {
		t.Fatalf("allowed.test is answered with %q", got)
	}
	if got := said(ask(t, app, n, "udp4", "allowed.test", dns.TypeAAAA)); got != "NOERROR, AAAA "+sharedV6 {
		t.Fatalf("allowed.test is answered with %q", got)
	}
	_ = ask(t, app, n, "udp4", "denied.test", dns.TypeA)
	for _, a := range []string{sharedV4, sharedV6} {
		roundTrip(t, app.mustDial("tcp", at(a, 443)), hello("allowed.test"))
		roundTrip(t, app.mustDial("tcp", at(a, 5432)), hello("ALLOWED.test"))
		roundTrip(t, app.mustDial("tcp", at(a, 80)), webRequest("allowed.test"))
		roundTrip(t, app.mustDial("tcp", at(a, 443)), append(webRequest("allowed.test:443"), bytes.Repeat([]byte("body"), 1<<18)...))
		roundTrip(t, app.mustDial("tcp", at(a, 5432)), []byte{0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f}) // PostgreSQL
		roundTrip(t, app.mustDial("tcp", at(a, 5432)), []byte("hello"))

		// The other name of the same address, said to TLS or HTTP; and none.
		refused(t, app, log, at(a, 443), hello("other.test"), a, "it is for other.test")
		refused(t, app, log, at(a, 443), records(hello("other.test"), 20), a, "it is for other.test")
		refused(t, app, log, at(a, 443), version(hello("other.test"), 3, 9), a, "it is for other.test")
		refused(t, app, log, at(a, 443), version(records(hello("other.test"), 20), 9, 9), a, "it is for other.test")
		refused(t, app, log, at(a, 443), append([]byte{21, 9, 9, 0, 2, 1, 0}, hello("other.test")...), a, "does not begin with a hello")
		refused(t, app, log, at(a, 443), hello(""), a, "without a server name")
		refused(t, app, log, at(a, 80), webRequest("other.test"), a, "it is for other.test")
		refused(t, app, log, at(a, 5432), webRequest("other.test"), a, "it is for other.test")
		for _, before := range []string{" ", "\t", "\x0b", "\x0c", "\x00", "\xa0"} {
			refused(t, app, log, at(a, 80), append([]byte(before), webRequest("other.test")...), a, "malformed HTTP")
		}
		refused(t, app, log, at(a, 80), []byte("\tGET /x\r\n"), a, "HTTP/0.9")
		refused(t, app, log, at(a, 80), []byte("GET http://other.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n"), a, "it is for other.test")
		refused(t, app, log, at(a, 80), []byte("GET\x00 / HTTP/1.1\r\nHost: other.test\r\n\r\n"), a, "malformed HTTP")
		refused(t, app, log, at(a, 80), []byte("GET / HTTP/1.1\r\nHost: allowed.test\r\nHost: other.test\r\n\r\n"), a, "several Host")
		refused(t, app, log, at(a, 80), []byte("GET / HTTP/1.1\r\nHost: other.test\r\n allowed.test\r\n\r\n"), a, "second line")
	}

	// A rule for another port of a name lets it be asked for, and no more: this is a redirect to a host that is denied.
	refused(t, app, log, at(otherV4, 443), hello("denied.test"), otherV4, "denied.test", "port 443")
	if got := said(ask(t, app, n, "udp4", "other.test", dns.TypeA)); got != "NXDOMAIN" {
		t.Errorf("other.test, for which there is no rule, is answered with %q", got)
	}

	// UDP goes by the name alone, so QUIC does not.
	for _, a := range []string{sharedV4, sharedV6} {
		u := app.mustDial("udp", at(a, 5000))
		roundTrip(t, u, []byte("x"))
		prohibitedUDP(t, app, log, at(a, 443), "udp", "QUIC")

		// Nor does it on another port, though other datagrams come first.
		if _, err := u.Write(append([]byte{0xc3, 0, 0, 0, 1, 8}, make([]byte, 1200)...)); err != nil {
			t.Fatal(err)
		}
		if m, err := u.Read(make([]byte, 1)); !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) {
			t.Errorf("QUIC to %s port 5000: %d bytes, %v; want it prohibited", a, m, err)
		}
		log.flows.awaitDenied(t, "udp", at(a, 5000), hiddenByQUIC)
	}
	prohibitedUDP(t, app, log, at(otherV4, 5000), "udp", otherV4)
}

func TestEgressUDPByNameWhenAskedFor(t *testing.T) {
	_, conf := serveZone(t)
	internet(t).echoUDP("udp", at(sharedV4, 443))
	app, n, _ := restricted(t, "allowed.test:443,udp://allowed.test:443", conf, false)
	_ = ask(t, app, n, "udp4", "allowed.test", dns.TypeA)
	roundTrip(t, app.mustDial("udp", at(sharedV4, 443)), append([]byte{0xc3, 0, 0, 0, 1, 8}, make([]byte, 1200)...))
	app, n, log := restricted(t, "udp://allowed.test:443", conf, false)
	_ = ask(t, app, n, "udp4", "allowed.test", dns.TypeA)
	refused(t, app, log, at(sharedV4, 443), nil, "tcp", sharedV4)
}

// TestEgressServersThatSpeakFirst holds that the check waits for the app, but nobody waits for the check.
func TestEgressServersThatSpeakFirst(t *testing.T) {
	_, conf := serveZone(t)
	inet := internet(t)
	greet := func(port int, serve func(net.Conn)) string {
		l := inet.listen("tcp", at(sharedV4, port))
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { defer c.Close(); serve(c) }()
			}
		}()
		return l.Addr().String()
	}
	polite := greet(25, func(c net.Conn) {
		_, _ = io.WriteString(c, "220 mail ready\r\n")
		_, _ = io.Copy(c, c)
	})
	brief := greet(13, func(c net.Conn) { _, _ = io.WriteString(c, "now") })
	const much = 32 << 20 // more than the kernel takes for an app that does not read
	loud := greet(19, func(c net.Conn) {
		said := make(chan struct{})
		go func() { defer close(said); _, _ = io.Copy(c, bytes.NewReader(make([]byte, much))) }()
		b, _ := io.ReadAll(c)
		<-said
		_, _ = fmt.Fprintf(c, "%d", len(b))
	})
	for _, slow := range []bool{false, true} {
		t.Run(fmt.Sprintf("slow %v", slow), func(t *testing.T) {
			app, n, _ := restricted(t, "allowed.test", conf, slow)
			_ = ask(t, app, n, "udp4", "allowed.test", dns.TypeA)

			c := app.mustDial("tcp", polite)
			b := make([]byte, 16)
			if _, err := io.ReadFull(c, b); err != nil || string(b) != "220 mail ready\r\n" {
				t.Fatalf("greeting: %q, %v", b, err)
			}
			roundTrip(t, c, []byte("EHLO app\r\n"))
			roundTrip(t, c, webRequest("other.test")) // the body of a mail, for example

			c = app.mustDial("tcp", brief)
			if b, err := io.ReadAll(c); err != nil || string(b) != "now" {
				t.Errorf("a server that speaks and ends: %q, %v", b, err)
			}
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				t.Errorf("ending after a server that has ended: %v", err)
			}

			c = app.mustDial("tcp", loud)
			time.Sleep(50 * time.Millisecond) // so that there is much on the way when the app begins
			sent := bytes.Repeat([]byte("\x00binary"), 1<<20)
			if _, err := c.Write(sent); err != nil {
				t.Fatal(err)
			}
			_ = c.(*net.TCPConn).CloseWrite()
			m, err := io.Copy(io.Discard, io.LimitReader(c, much))
			if err != nil || m != much {
				t.Fatalf("from a server that says much: %d bytes, %v", m, err)
			}
			if b, err := io.ReadAll(c); err != nil || string(b) != fmt.Sprint(len(sent)) {
				t.Errorf("the server has got %q bytes, %v; want %d", b, err, len(sent))
			}
		})
	}
}

// TestEgressServerThatHasClosed has an app go on speaking to a server that is gone: it must be told.
func TestEgressServerThatHasClosed(t *testing.T) {
	_, conf := serveZone(t)
	l := internet(t).listen("tcp", at(sharedV4, 0))
	for _, slow := range []bool{false, true} {
		app, n, _ := restricted(t, "allowed.test", conf, slow)
		_ = ask(t, app, n, "udp4", "allowed.test", dns.TypeA)
		c := app.mustDial("tcp", l.Addr().String())
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if m, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("the server's end: %d, %v", m, err)
		}
		_, _ = c.Write([]byte("late")) // could still become anything
		end := time.Now().Add(20 * time.Second)
		for err = nil; err == nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
			raw, rerr := c.(*net.TCPConn).SyscallConn()
			if rerr != nil {
				t.Fatal(rerr)
			}
			_ = raw.Control(func(fd uintptr) {
				fds := []unix.PollFd{{Fd: int32(fd)}}
				if m, perr := unix.Poll(fds, 0); perr == nil && m > 0 && fds[0].Revents&unix.POLLERR != 0 {
					err = unix.ECONNRESET
				}
			})
		}
		if err == nil {
			t.Errorf("slow %v: an app that speaks to a closed server is not told", slow)
		}
	}
}

func TestEgressNamesAreNoWayOut(t *testing.T) {
	z, conf := serveZone(t)
	app, n, log := restricted(t, "allowed.test,*.wild.test:443,alias.test,rebind.test,rebind6.test,internal.test", conf, false)
	long := strings.Repeat("x", 60)
	for _, c := range []struct {
		name string
		kind uint16
		want string
		asks bool // the host's resolver is asked
	}{
		{"allowed.test", dns.TypeA, "NOERROR, A " + sharedV4, true},
		{"aLLoweD.tESt", dns.TypeA, "NOERROR, A " + sharedV4, true},
		{"allowed.test", dns.TypeTXT, `NOERROR, TXT "hello"`, true},
		{"allowed.test", dns.TypeHTTPS, "NOERROR", false},
		{"allowed.test", dns.TypeNULL, "NOERROR", false},
		{"allowed.test", dns.TypeANY, "NOERROR", false},
		{"sub.allowed.test", dns.TypeA, "NXDOMAIN", false},
		{"other.test", dns.TypeA, "NXDOMAIN", false},
		{"secret-data.evil.test", dns.TypeTXT, "NXDOMAIN", false},
		{"wild.test", dns.TypeA, "NXDOMAIN", false},
		{"a.wild.test", dns.TypeA, "NOERROR, A " + wildV4, true},
		{"a.b.wild.test", dns.TypeA, "NOERROR, A " + wildV4, true},
		{long + ".wild.test", dns.TypeA, "NOERROR, A " + wildV4, true},
		{long + "." + long + ".wild.test", dns.TypeA, "NXDOMAIN", false},
		{long + "." + long + "." + long + ".evil.test", dns.TypeA, "NXDOMAIN", false},
		{"alias.test", dns.TypeA, "NOERROR, CNAME a.cdn.test., A " + otherV4, true},
		{"rebind.test", dns.TypeA, "NOERROR, A " + sharedV4, true},
		{"rebind6.test", dns.TypeAAAA, "NOERROR", true},
		{"internal.test", dns.TypeA, "NOERROR", true},
		{"1.0.0.8.in-addr.arpa", dns.TypePTR, "NXDOMAIN", false},
	} {
		before := len(z.questions())
		if got := said(ask(t, app, n, "udp4", c.name, c.kind)); got != c.want {
			t.Errorf("%s %s: got %q, want %q", c.name, dns.TypeToString[c.kind], got, c.want)
		}
		asked := z.questions()[before:]
		if (len(asked) > 0) != c.asks {
			t.Errorf("%s %s: the host's resolver was asked %q", c.name, dns.TypeToString[c.kind], asked)
		}
		for _, q := range asked {
			if q != strings.ToLower(q) {
				t.Errorf("the case of letters in %q got out", q)
			}
		}
	}
	for _, name := range []string{"secret-data.evil.test", "sub.allowed.test", "other.test", "wild.test", long + "." + long + "." + long + ".evil.test"} {
		log.flows.awaitName(t, name)
	}
	if len(log.about("secret-data.evil.test")) == 0 || len(log.about("more than 63 bytes")) == 0 {
		t.Error("names that were denied are not in the log")
	}

	// Names that hold data one by one run out.
	answered := 0
	for i := range 3 * nameBurst {
		if said(ask(t, app, n, "udp4", fmt.Sprintf("data%d.wild.test", i), dns.TypeA)) == "NOERROR, A "+wildV4 {
			answered++
		}
	}
	if answered < nameBurst/2 || answered > 2*nameBurst {
		t.Errorf("%d of %d new names below a wildcard were answered, want about %d", answered, 3*nameBurst, nameBurst)
	}
	if got := said(ask(t, app, n, "udp4", "data0.wild.test", dns.TypeA)); got != "NOERROR, A "+wildV4 {
		t.Errorf("a name that was asked for before: %q", got)
	}
	for _, q := range z.questions() {
		if strings.Contains(q, "evil") || len(q) > 80 {
			t.Errorf("the host's resolver was asked for %q", q)
		}
	}
	if m := ask(t, app, n, "udp4", "evil.test", dns.TypeA); m.IsEdns0() != nil {
		t.Error("an asker without EDNS got it")
	}
}

func TestEgressDenialsOfNamesAreExplained(t *testing.T) {
	_, conf := serveZone(t)
	app, n, _ := restricted(t, "internal.test", conf, false)
	gw, _ := n.Gateway()
	for name, want := range map[string]string{"evil.test.": "no rule allows this name", "internal.test.": "10.99.0.1 is not a public address: that needs a rule of its own"} {
		q := new(dns.Msg)
		q.SetQuestion(name, dns.TypeA)
		q.SetEdns0(1232, false)
		c := &dns.Conn{Conn: app.mustDial("udp", at(gw, 53)), UDPSize: 4096}
		if err := c.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
		m, err := c.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		why := ""
		for _, o := range m.IsEdns0().Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok && e.InfoCode == dns.ExtendedErrorCodeProhibited {
				why = e.ExtraText
			}
		}
		if why != want {
			t.Errorf("%s: explained by %q, want %q", name, why, want)
		}
	}
}

// TestEgressIsEachSandboxsOwn has two sandboxes on a network: what one has learned and may reach, the other may not.
func TestEgressIsEachSandboxsOwn(t *testing.T) {
	_, conf := serveZone(t)
	inet := internet(t)
	a := inet.echoTCP("tcp", at(sharedV4, 0)).String()
	one, n, log := restricted(t, "allowed.test", conf, false)
	two := newNamespace(t)
	e, err := n.Attach(context.Background(), AttachOptions{NetNS: two.fd, Name: "two", Egress: "allowed.test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	open, _ := newSandbox(t, n, "open") // as the network says: all
	_ = ask(t, one, n, "udp4", "allowed.test", dns.TypeA)
	roundTrip(t, one.mustDial("tcp", a), []byte("x"))
	refused(t, two, log, a, nil, "app=two")
	roundTrip(t, open.mustDial("tcp", a), []byte("x"))
	if _, err := n.Attach(context.Background(), AttachOptions{NetNS: two.fd, Name: "three", Egress: "every thing"}); err == nil {
		t.Error("a policy that makes no sense is taken")
	}
}

func TestKnownNames(t *testing.T) {
	var k knownNames
	start := time.Now()
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	k.learn(start, "one.test", time.Second, a, b)
	k.learn(start, "two.test", time.Hour, a)
	k.learn(start, "long.test", 1000*time.Hour, b)
	for _, c := range []struct {
		after time.Duration
		addr  netip.Addr
		want  string
	}{
		{0, a, "two.test one.test"},
		{0, netip.MustParseAddr("::ffff:192.0.2.1"), "two.test one.test"},
		{0, netip.MustParseAddr("192.0.2.3"), ""},
		{knownLeast - 1, a, "two.test one.test"},
		{knownLeast, a, "two.test"},
		{time.Hour, a, ""},
		{knownMost - 1, b, "long.test"},
		{knownMost, b, ""},
	} {
		if got := strings.Join(k.names(start.Add(c.after), c.addr), " "); got != c.want {
			t.Errorf("after %v %s is %q, want %q", c.after, c.addr, got, c.want)
		}
	}
	if len(k.ends) != 0 || len(k.of) != 0 {
		t.Errorf("what has ended is kept: %v %v", k.ends, k.of)
	}

	k.learn(start, "used.test", 0, a)
	k.use(start.Add(knownLeast/2), a, "used.test")
	k.use(start, a, "unknown.test")
	if got := k.names(start.Add(knownLeast), a); len(got) != 1 {
		t.Errorf("a name in use is forgotten: %q", got)
	}

	for i := range 3 * maxKnown {
		k.learn(start.Add(time.Duration(i)), fmt.Sprintf("n%d.test", i), 0, netip.AddrFrom4([4]byte{8, byte(i >> 16), byte(i >> 8), byte(i)}))
		if len(k.ends) > maxKnown {
			t.Fatalf("%d names are kept", len(k.ends))
		}
	}
	last := 3*maxKnown - 1
	if got := k.names(start, netip.AddrFrom4([4]byte{8, byte(last >> 16), byte(last >> 8), byte(last)})); len(got) != 1 {
		t.Errorf("the last name is not known: %q", got)
	}
}
