package slirp

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/whisk-sandbox/whisk/config"
)

func rules(tb testing.TB, list ...string) []config.EgressRule {
	tb.Helper()
	e, err := config.ParseEgressList(list)
	if err != nil {
		tb.Fatal(err)
	}
	return e.Rules
}

func nobodys(netip.Addr) bool { return false }

func TestNameRule(t *testing.T) {
	list := rules(t, "exact.test:443", "*.wild.test", "*.deep.wild.test", "long.wild.test", "192.0.2.1")
	x := strings.Repeat("x", maxBelow)
	for _, c := range []struct {
		name     string
		wildcard bool
		denied   bool
	}{
		{"exact.test", false, false},
		{"sub.exact.test", false, true},
		{"wild.test", false, true},
		{"a.wild.test", true, false},
		{"long.wild.test", false, false},
		{x + ".wild.test", true, false},
		{"x" + x + ".wild.test", false, true},
		{"x." + x + ".wild.test", false, true},
		{x + ".deep.wild.test", true, false},
		{"192.0.2.1", false, true},
		{"", false, true},
	} {
		wildcard, why := nameRule(list, c.name)
		if wildcard != c.wildcard || (why != "") != c.denied {
			t.Errorf("%q: wildcard %v, why %q", c.name, wildcard, why)
		}
	}
}

func TestNameBudget(t *testing.T) {
	var b nameBudget
	now := time.Now()
	name := func(i int) string { return strings.Repeat("x", i) }
	for i := range nameBurst {
		if !b.spend(now, name(i)) {
			t.Fatalf("the name number %d is refused", i)
		}
	}
	if b.spend(now, "another") {
		t.Error("there is one more than the burst")
	}
	if !b.spend(now, name(0)) {
		t.Error("a name that is paid for is refused")
	}
	if now = now.Add(2 * nameRefill); !b.spend(now, "a") || !b.spend(now, "b") || b.spend(now, "c") {
		t.Error("two seconds are not two names")
	}
}

// message reads records in a zone's words.
func message(tb testing.TB, name string, kind uint16, lines ...string) (q, m *dns.Msg) {
	tb.Helper()
	q, m = new(dns.Msg), new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), kind)
	m.SetReply(q)
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		if err != nil {
			tb.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	return q, m
}

func TestFilterAnswer(t *testing.T) {
	for _, c := range []struct {
		name  string
		asked string
		lines []string
		want  string
		addrs string
	}{
		{"an address", "a.test", []string{"a.test. 60 A 8.0.0.1"}, "NOERROR, A 8.0.0.1", "8.0.0.1"},
		{"in other letters", "A.Test", []string{"a.test. 60 A 8.0.0.1"}, "NOERROR, A 8.0.0.1", "8.0.0.1"},
		{"another name's", "a.test", []string{"b.test. 60 A 8.0.0.1"}, "NOERROR", ""},
		{"another type", "a.test", []string{"a.test. 60 AAAA 2600::1", "a.test. 60 TXT x"}, "NOERROR", ""},
		{"an alias", "a.test", []string{"a.test. 60 CNAME b.test.", "b.test. 60 CNAME c.test.", "c.test. 60 A 8.0.0.1"}, "NOERROR, CNAME b.test., CNAME c.test., A 8.0.0.1", "8.0.0.1"},
		{"an alias out of order", "a.test", []string{"c.test. 60 A 8.0.0.1", "b.test. 60 CNAME c.test.", "a.test. 60 CNAME b.test."}, "NOERROR, A 8.0.0.1, CNAME c.test., CNAME b.test.", "8.0.0.1"},
		{"an alias that goes round", "a.test", []string{"a.test. 60 CNAME b.test.", "b.test. 60 CNAME a.test.", "c.test. 60 A 8.0.0.1"}, "NOERROR, CNAME b.test., CNAME a.test.", ""},
		{"a broken alias", "a.test", []string{"a.test. 60 CNAME b.test.", "c.test. 60 A 8.0.0.1"}, "NOERROR, CNAME b.test.", ""},
		{"private addresses", "a.test", []string{"a.test. 60 A 127.0.0.1", "a.test. 60 A 192.168.1.1", "a.test. 60 A 8.0.0.1"}, "NOERROR, A 8.0.0.1", "8.0.0.1"},
		{"an address that a rule is about", "a.test", []string{"a.test. 60 A 10.1.2.3"}, "NOERROR, A 10.1.2.3", "10.1.2.3"},
		{"metadata at a public address", "a.test", []string{"a.test. 60 A 168.63.129.16"}, "NOERROR", ""},
		{"metadata, which a wide rule is not about", "a.test", []string{"a.test. 60 A 169.254.169.254"}, "NOERROR", ""},
		{"another class", "a.test", []string{"a.test. 60 CH A 8.0.0.1"}, "NOERROR", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines := c.lines
			if strings.Contains(lines[0], " CH ") {
				lines = nil
			}
			q, m := message(t, c.asked, dns.TypeA, lines...)
			if lines == nil {
				m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "a.test.", Rrtype: dns.TypeA, Class: dns.ClassCHAOS}, A: []byte{8, 0, 0, 1}}}
			}
			list := rules(t, "a.test", "10.1.0.0/16:22", "0.0.0.0/4")
			got := filterAnswer(q, m, func(a netip.Addr) bool { return answerable(list, a, nobodys) })
			if said(got) != c.want {
				t.Errorf("got %q, want %q", said(got), c.want)
			}
			addrs, _ := addressesOf(q, got)
			var text []string
			for _, a := range addrs {
				text = append(text, a.String())
			}
			if strings.Join(text, " ") != c.addrs {
				t.Errorf("addresses %v, want %q", addrs, c.addrs)
			}
			for _, rr := range got.Answer {
				if strings.EqualFold(rr.Header().Name, q.Question[0].Name) && rr.Header().Name != q.Question[0].Name {
					t.Errorf("the name comes back as %q", rr.Header().Name)
				}
			}
		})
	}
}

func TestAddressesLastAsLongAsTheShortestRecord(t *testing.T) {
	q, m := message(t, "a.test", dns.TypeA, "a.test. 300 CNAME b.test.", "b.test. 30 A 8.0.0.1", "b.test. 60 A 8.0.0.2", "x.test. 1 A 8.0.0.3")
	if addrs, ttl := addressesOf(q, m); len(addrs) != 2 || ttl != 30*time.Second {
		t.Errorf("got %v for %v", addrs, ttl)
	}
}

// FuzzFilterAnswer reads a resolver's answer and holds that nothing is left of it that a list would not have.
func FuzzFilterAnswer(f *testing.F) {
	for _, lines := range [][]string{
		{"a.test. 60 A 8.0.0.1", "a.test. 60 A 127.0.0.1"},
		{"a.test. 60 CNAME b.test.", "b.test. 60 CNAME c.test.", "c.test. 60 AAAA 2600::1", "c.test. 60 AAAA ::ffff:10.0.0.1"},
		{"a.test. 60 CNAME a.test.", "a.test. 1 TXT x", `a.test. 1 HTTPS 1 . alpn="h3" ipv4hint="127.0.0.1"`},
		{"a.test. 60 SRV 1 2 3 b.test.", "a.test. 60 MX 1 b.test.", "b.test. 1 A 10.1.2.3"},
	} {
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV} {
			_, m := message(f, "a.test", kind, lines...)
			b, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add("A.test", kind, b)
		}
	}
	list := rules(f, "a.test", "10.0.0.0/8")
	host := netip.MustParseAddr("8.8.8.8")
	may := func(a netip.Addr) bool { return answerable(list, a, func(a netip.Addr) bool { return a == host }) }
	f.Fuzz(func(t *testing.T, name string, kind uint16, b []byte) {
		m := new(dns.Msg)
		if _, valid := dns.IsDomainName(name); !valid || m.Unpack(b) != nil {
			return
		}
		q := new(dns.Msg)
		q.SetQuestion(dns.Fqdn(name), kind)
		got := filterAnswer(q, m, may)
		owners := chain(canonical(name), got.Answer)
		if len(owners) > maxChain+1 {
			t.Errorf("%d names", len(owners))
		}
		for _, rr := range got.Answer {
			h := rr.Header()
			if !owners[canonical(h.Name)] {
				t.Errorf("a record of %q for the question %q", h.Name, name)
			}
			if h.Rrtype != kind && h.Rrtype != dns.TypeCNAME {
				t.Errorf("a record of type %d for a question of %d", h.Rrtype, kind)
			}
			if a, ok := addressOf(rr); ok && (a == host || !public(a) && !netip.MustParsePrefix("10.0.0.0/8").Contains(a)) {
				t.Errorf("%s is let through", a)
			}
		}
		for _, a := range first(addressesOf(q, got)) {
			if !may(a) {
				t.Errorf("%s is learned", a)
			}
		}
		if len(got.Extra) > 0 {
			t.Errorf("further records: %v", got.Extra)
		}
	})
}

func first[A, B any](a A, _ B) A { return a }
