package slirp

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/miekg/dns"
)

// stubResolver serves on an address of the host's own, as systemd-resolved does, with as many records as the question's
// first label says (n30.example.org).
func stubResolver(t *testing.T, addr string) {
	t.Helper()
	host := &namespace{t, mustHostNS(t)}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		m.RecursionAvailable = true
		count := 1
		_, _ = fmt.Sscanf(q.Question[0].Name, "n%d.", &count)
		for i := range count {
			text := fmt.Sprintf("%s 60 IN A 192.0.%d.%d", q.Question[0].Name, 2+i/200, 1+i%200)
			switch q.Question[0].Qtype {
			case dns.TypeAAAA:
				text = fmt.Sprintf("%s 60 IN AAAA 2001:db8::%d", q.Question[0].Name, i+1)
			case dns.TypePTR:
				text = q.Question[0].Name + " 60 IN PTR name.example.org."
			}
			if rr, err := dns.NewRR(text); err == nil {
				m.Answer = append(m.Answer, rr)
			}
		}
		size := dns.MaxMsgSize
		if _, udp := w.LocalAddr().(*net.UDPAddr); udp {
			size = plainUDP
			if o := q.IsEdns0(); o != nil {
				size = int(o.UDPSize())
			}
		}
		if o := q.IsEdns0(); o != nil {
			m.SetEdns0(4096, o.Do())
		}
		m.Truncate(size)
		_ = w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{
		{PacketConn: host.listenPacket("udp", addr), Handler: handler},
		{Listener: host.listen("tcp", addr), Handler: handler},
	} {
		go func() { _ = s.ActivateAndServe() }()
	}
}

// TestTheHostsOwnResolverIsAsked is for hosts whose resolv.conf names a loopback address, which no sandbox can reach itself.
func TestTheHostsOwnResolverIsAsked(t *testing.T) {
	internet(t)
	stubResolver(t, "127.0.0.53:53")
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("# This is /run/systemd/resolve/stub-resolv.conf managed by man:systemd-resolved(8).\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := newNetwork(t, func(c *Config) { c.ResolvConf = conf })
	app, _ := newSandbox(t, n, "web")
	for _, network := range []string{"udp4", "udp6", "tcp4", "tcp6"} {
		for _, c := range []struct {
			name string
			kind uint16
			want string
		}{
			{"example.org", dns.TypeA, "NOERROR, A 192.0.2.1"},
			{"example.org", dns.TypeAAAA, "NOERROR, AAAA 2001:db8::1"},
			{"1.2.0.192.in-addr.arpa", dns.TypePTR, "NOERROR, PTR name.example.org."},
		} {
			if got := said(ask(t, app, n, network, c.name, c.kind)); got != c.want {
				t.Errorf("%s %s over %s: got %q, want %q", c.name, dns.TypeToString[c.kind], network, got, c.want)
			}
		}
	}
	if c, err := app.dial("udp", "127.0.0.53:53"); err == nil {
		defer c.Close()
		_, _ = c.Write([]byte("x"))
		if m, err := c.Read(make([]byte, 10)); err == nil {
			t.Errorf("the sandbox reached the host's loopback itself: %d bytes", m)
		}
	}
}

// TestAnswersFitTheirAsker asks for answers of several sizes with several limits.
func TestAnswersFitTheirAsker(t *testing.T) {
	internet(t)
	stubResolver(t, "127.0.0.54:53")
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver 127.0.0.54\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := newNetwork(t, func(c *Config) { c.ResolvConf = conf })
	app, _ := newSandbox(t, n, "web")
	gw, _ := n.Gateway()
	for _, c := range []struct {
		name    string
		records int
		edns    uint16 // 0: none
		network string
		whole   bool
	}{
		{"small, no EDNS", 5, 0, "udp", true},
		{"more than 512 bytes, no EDNS", 60, 0, "udp", false},
		{"more than 512 bytes, EDNS 1232", 60, 1232, "udp", true},
		{"more than 1232 bytes, EDNS 1232", 200, 1232, "udp", false},
		{"more than 1232 bytes, EDNS 4096", 200, 4096, "udp", true},
		{"EDNS that asks for less than 512", 20, 100, "udp", true},
		{"large over TCP, no EDNS", 1000, 0, "tcp", true},
		{"large over TCP, EDNS", 1000, 1232, "tcp", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := new(dns.Msg)
			q.SetQuestion(fmt.Sprintf("n%d.example.org.", c.records), dns.TypeA)
			limit := plainUDP
			if c.edns != 0 {
				q.SetEdns0(c.edns, false)
				limit = max(limit, int(c.edns))
			}
			if c.network == "tcp" {
				limit = dns.MaxMsgSize
			}
			conn := &dns.Conn{Conn: app.mustDial(c.network, at(gw, 53)), UDPSize: 65535}
			if err := conn.WriteMsg(q); err != nil {
				t.Fatal(err)
			}
			b, err := conn.ReadMsgHeader(nil)
			if err != nil {
				t.Fatal(err)
			}
			m := new(dns.Msg)
			if err := m.Unpack(b); err != nil {
				t.Fatal(err)
			}
			if len(b) > limit {
				t.Errorf("answer of %d bytes, at most %d fit", len(b), limit)
			}
			if whole := len(m.Answer) == c.records && !m.Truncated; whole != c.whole || !whole && !m.Truncated {
				t.Errorf("%d of %d records, truncated %v; want whole %v", len(m.Answer), c.records, m.Truncated, c.whole)
			}
			if (m.IsEdns0() != nil) != (c.edns != 0) {
				t.Errorf("EDNS in the answer: %v, in the question: %v", m.IsEdns0() != nil, c.edns != 0)
			}
		})
	}
}

// TestResolvConfComesAndGoes has the host without a resolver at first, and at last.
func TestResolvConfComesAndGoes(t *testing.T) {
	internet(t)
	stubResolver(t, "127.0.0.55:53")
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	n := newNetwork(t, func(c *Config) { c.ResolvConf = conf })
	app, e := newSandbox(t, n, "web")
	own := "NOERROR, A " + e.IPv4().String()
	for _, c := range []struct {
		name, conf string
		gone       bool
		want       string
	}{
		{"missing", "", true, "SERVFAIL"},
		{"appears", "nameserver 127.0.0.55\n", false, "NOERROR, A 192.0.2.1"},
		{"emptied", "", false, "SERVFAIL"},
		{"comments only", "# nothing\n", false, "SERVFAIL"},
		{"back", "nameserver 127.0.0.55\n", false, "NOERROR, A 192.0.2.1"},
		{"removed", "", true, "SERVFAIL"},
	} {
		if c.gone {
			_ = os.Remove(conf)
		} else if err := os.WriteFile(conf, []byte(c.conf), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := said(ask(t, app, n, "udp4", "example.org", dns.TypeA)); got != c.want {
			t.Errorf("resolv.conf %s: got %q, want %q", c.name, got, c.want)
		}
		if got := said(ask(t, app, n, "udp4", "web", dns.TypeA)); got != own {
			t.Errorf("resolv.conf %s: the sandbox's own name: got %q, want %q", c.name, got, own)
		}
	}
}
