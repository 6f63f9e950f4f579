package slirp

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// ask sends a question from a sandbox to its gateway.
func ask(t *testing.T, ns *namespace, n *Network, network, name string, kind uint16) *dns.Msg {
	t.Helper()
	v4, v6 := n.Gateway()
	gw := v4.String()
	if strings.HasSuffix(network, "6") {
		gw = v6.String()
	}
	c := &dns.Conn{Conn: ns.mustDial(network, at(gw, 53)), UDPSize: 4096}
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), kind)
	if err := c.WriteMsg(q); err != nil {
		t.Fatal(err)
	}
	m, err := c.ReadMsg()
	if err != nil {
		t.Fatalf("asking for %s: %v", name, err)
	}
	return m
}

// said renders what matters of an answer.
func said(m *dns.Msg) string {
	out := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		f := strings.Fields(rr.String())
		out = append(out, f[3]+" "+strings.Join(f[4:], " "))
	}
	return strings.Join(out, ", ")
}

func TestNamesOfApps(t *testing.T) {
	n := newNetwork(t)
	web, _ := newSandbox(t, n, "web", "www", "both")
	_, db := newSandbox(t, n, "db", "both")
	gw4, gw6 := n.Gateway()
	reverse := func(a any) string {
		s, err := dns.ReverseAddr(fmt.Sprint(a))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		name string
		kind uint16
		want string
	}{
		{"db", dns.TypeA, "NOERROR, A " + db.IPv4().String()},
		{"DB", dns.TypeA, "NOERROR, A " + db.IPv4().String()},
		{"db.shop", dns.TypeA, "NOERROR, A " + db.IPv4().String()},
		{"db.SHOP", dns.TypeAAAA, "NOERROR, AAAA " + db.IPv6().String()},
		{"db", dns.TypeMX, "NOERROR"},
		{"www", dns.TypeA, "NOERROR, A " + n.endpointNamed("web").IPv4().String()},
		{"both", dns.TypeA, "NOERROR, A " + n.endpointNamed("web").IPv4().String() + ", A " + db.IPv4().String()},
		{"host.whisk.internal", dns.TypeA, "NOERROR, A " + gw4.String()},
		{"host.whisk.internal", dns.TypeAAAA, "NOERROR, AAAA " + gw6.String()},
		{"other.whisk.internal", dns.TypeA, "NXDOMAIN"},
		{reverse(db.IPv4()), dns.TypePTR, "NOERROR, PTR db.shop."},
		{reverse(db.IPv6()), dns.TypePTR, "NOERROR, PTR db.shop."},
		{reverse(gw4), dns.TypePTR, "NOERROR, PTR host.whisk.internal."},
		{reverse(n.plan.v4.Addr().Next().Next().Next().Next().Next()), dns.TypePTR, "NXDOMAIN"},
		{"example.org", dns.TypeA, "SERVFAIL"}, // the host has no resolver
	} {
		for _, network := range []string{"udp4", "udp6", "tcp4", "tcp6"} {
			t.Run(c.name+" "+dns.TypeToString[c.kind]+" "+network, func(t *testing.T) {
				start := time.Now()
				if got := said(ask(t, web, n, network, c.name, c.kind)); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
				if d := time.Since(start); d > time.Second {
					t.Errorf("took %v", d)
				}
			})
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if got := said(ask(t, web, n, "udp4", "db", dns.TypeA)); got != "SERVFAIL" {
		t.Errorf("after db has left: got %q, want it unknown", got)
	}
}

func (n *Network) endpointNamed(name string) *Endpoint {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.endpoints {
		if e.name == name {
			return e
		}
	}
	return nil
}

func TestEgressNoneAnswersAppNamesOnly(t *testing.T) {
	n := newNetwork(t, func(c *Config) { c.Egress = "none" })
	web, e := newSandbox(t, n, "web")
	if got, want := said(ask(t, web, n, "udp4", "web", dns.TypeA)), "NOERROR, A "+e.IPv4().String(); got != want {
		t.Errorf("own name: got %q, want %q", got, want)
	}
	if got := said(ask(t, web, n, "udp4", "example.org", dns.TypeA)); got != "NXDOMAIN" {
		t.Errorf("other name: got %q, want NXDOMAIN", got)
	}
}

// upstream is a name server of the test's internet that answers every A question with an address.
func upstream(t *testing.T, ip, answer string) {
	t.Helper()
	inet := internet(t)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		count := 1
		if strings.HasPrefix(q.Question[0].Name, "big.") {
			count = 300
		}
		for i := range count {
			rr, err := dns.NewRR(fmt.Sprintf("%s 60 IN A %s%d", q.Question[0].Name, strings.TrimRight(answer, "0123456789"), (i+1)%256))
			if err == nil {
				m.Answer = append(m.Answer, rr)
			}
		}
		if _, udp := w.LocalAddr().(*net.UDPAddr); udp {
			size := 512
			if o := q.IsEdns0(); o != nil {
				size = int(o.UDPSize())
			}
			m.Truncate(size)
		}
		_ = w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{
		{PacketConn: inet.listenPacket("udp", at(ip, 53)), Handler: handler},
		{Listener: inet.listen("tcp", at(ip, 53)), Handler: handler},
	} {
		go func() { _ = s.ActivateAndServe() }()
	}
}

func TestOtherNamesGoToTheHostsResolver(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(conf, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	upstream(t, inetV4, "192.0.2.1")
	upstream(t, inetV6, "203.0.113.1")
	write("# by hand\nnameserver " + inetV4 + "\noptions edns0\n")
	n := newNetwork(t, func(c *Config) { c.ResolvConf = conf })
	web, _ := newSandbox(t, n, "web")
	if got := said(ask(t, web, n, "udp4", "example.org", dns.TypeA)); got != "NOERROR, A 192.0.2.1" {
		t.Errorf("got %q", got)
	}

	m := ask(t, web, n, "udp4", "big.example.org", dns.TypeA)
	if !m.Truncated || len(m.Answer) >= 300 {
		t.Errorf("large answer over UDP: %d records, truncated %v", len(m.Answer), m.Truncated)
	}
	if m := ask(t, web, n, "tcp4", "big.example.org", dns.TypeA); len(m.Answer) != 300 {
		t.Errorf("large answer over TCP: %d records, want 300", len(m.Answer))
	}

	write("nameserver " + inetV6 + "  # the VPN's\nnameserver " + inetV4 + "\n")
	if got := said(ask(t, web, n, "udp4", "example.org", dns.TypeA)); got != "NOERROR, A 203.0.113.1" {
		t.Errorf("after resolv.conf has changed: got %q", got)
	}

	// The first server is silent (nothing answers on 127.0.0.1:53 of the test's host: refused), the next one serves.
	write("nameserver 127.0.0.1\nnameserver " + inetV4 + "\n")
	if got := said(ask(t, web, n, "udp4", "example.org", dns.TypeA)); got != "NOERROR, A 192.0.2.1" {
		t.Errorf("with a dead first server: got %q", got)
	}
}

func TestNameservers(t *testing.T) {
	for _, c := range []struct{ name, conf, want string }{
		{"plain", "nameserver 192.0.2.1\n", "192.0.2.1:53"},
		{"comments", "; x\n#nameserver 192.0.2.9\n nameserver\t192.0.2.1 ; y\n", "192.0.2.1:53"},
		{"IPv6 with a zone", "nameserver fe80::1%eth0\n", "[fe80::1%eth0]:53"},
		{"no more than three", "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n", "192.0.2.1:53 192.0.2.2:53 192.0.2.3:53"},
		{"nonsense", "nameserver\nnameserver example.org\nsearch nameserver", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := strings.Join(nameservers(c.conf), " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzNameservers(f *testing.F) {
	f.Add("nameserver 192.0.2.1\nnameserver ::1\n# x")
	f.Fuzz(func(t *testing.T, conf string) {
		out := nameservers(conf)
		if len(out) > maxServers {
			t.Errorf("%d servers", len(out))
		}
		for _, s := range out {
			if _, port, err := net.SplitHostPort(s); err != nil || port != "53" {
				t.Errorf("server %q: %v", s, err)
			}
		}
	})
}

func FuzzReverseName(f *testing.F) {
	f.Add("1.2.3.10.in-addr.arpa")
	f.Add("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa")
	f.Fuzz(func(t *testing.T, name string) {
		name = canonical(name)
		a, ok := reverseName(name)
		if !ok {
			return
		}
		if s, err := dns.ReverseAddr(a.String()); err != nil || canonical(s) != name && !a.Is4() && !a.Is4In6() {
			t.Errorf("%q read as %s, which is %q (%v)", name, a, s, err)
		}
	})
}

func TestSameQuestion(t *testing.T) {
	q := new(dns.Msg)
	q.SetQuestion("a.test.", dns.TypeA)
	answer := func(change func(m *dns.Msg)) *dns.Msg {
		m := new(dns.Msg)
		m.SetReply(q)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "a.test.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: []byte{8, 0, 0, 1}}}
		change(m)
		return m
	}
	for _, c := range []struct {
		name   string
		change func(m *dns.Msg)
		same   bool
	}{
		{"the question", func(*dns.Msg) {}, true},
		{"in other letters", func(m *dns.Msg) { m.Question[0].Name = "A.Test." }, true},
		{"another name", func(m *dns.Msg) { m.Question[0].Name = "b.test." }, false},
		{"another type", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }, false},
		{"another class", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, false},
		{"no question", func(m *dns.Msg) { m.Question = nil }, false},
		{"two questions", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, false},
		{"a question itself", func(m *dns.Msg) { m.Response = false }, false},
		{"another operation", func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, false},
		{"a question that it could not read", func(m *dns.Msg) { m.Question, m.Answer, m.Rcode = nil, nil, dns.RcodeFormatError }, true},
	} {
		if err := sameQuestion(q, answer(c.change)); (err == nil) != c.same {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
