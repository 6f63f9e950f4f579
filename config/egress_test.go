package config

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestParseEgressRule(t *testing.T) {
	prefix := netip.MustParsePrefix
	for _, c := range []struct {
		text string
		want EgressRule
	}{
		{"api.example.com", EgressRule{Name: "api.example.com"}},
		{"API.Example.com:443", EgressRule{Name: "api.example.com", Port: 443}},
		{"*.example.org:443", EgressRule{Name: "example.org", Subdomains: true, Port: 443}},
		{"nas", EgressRule{Name: "nas"}},
		{"_xmpp._tcp.example.org", EgressRule{Name: "_xmpp._tcp.example.org"}},
		{"10.0.0.0/8:5432", EgressRule{Prefix: prefix("10.0.0.0/8"), Port: 5432}},
		{"192.0.2.1", EgressRule{Prefix: prefix("192.0.2.1/32")}},
		{"[2001:db8::/32]:443", EgressRule{Prefix: prefix("2001:db8::/32"), Port: 443}},
		{"[2001:db8::1]", EgressRule{Prefix: prefix("2001:db8::1/128")}},
		{"2001:db8::1", EgressRule{Prefix: prefix("2001:db8::1/128")}},
		{"2001:db8::/32", EgressRule{Prefix: prefix("2001:db8::/32")}},
		{"::ffff:192.0.2.1", EgressRule{Prefix: prefix("192.0.2.1/32")}},
		{"0.0.0.0/0", EgressRule{Prefix: prefix("0.0.0.0/0")}},
		{"::/0", EgressRule{Prefix: prefix("::/0")}},
		{"169.254.169.254", EgressRule{Prefix: prefix("169.254.169.254/32")}},
		{"udp://192.0.2.53:53", EgressRule{Protocol: "udp", Prefix: prefix("192.0.2.53/32"), Port: 53}},
		{"udp://[2001:db8::53]:53", EgressRule{Protocol: "udp", Prefix: prefix("2001:db8::53/128"), Port: 53}},
		{"tcp://db.example.com:5432", EgressRule{Protocol: "tcp", Name: "db.example.com", Port: 5432}},
		{"icmp://192.0.2.1", EgressRule{Protocol: "icmp", Prefix: prefix("192.0.2.1/32")}},
		{"icmp://2001:db8::1", EgressRule{Protocol: "icmp", Prefix: prefix("2001:db8::1/128")}},
	} {
		t.Run(c.text, func(t *testing.T) {
			got, err := ParseEgressRule(c.text)
			if err != nil || got != c.want {
				t.Fatalf("got %+v, %v; want %+v", got, err, c.want)
			}
			if again, err := ParseEgressRule(got.String()); err != nil || again != got {
				t.Errorf("written as %q it is %+v, %v", got, again, err)
			}
		})
	}
}

func TestParseEgressRuleRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "a rule is empty"},
		{"a b", "no blanks"},
		{"a\n", "control character"},
		{"all", "stands alone"},
		{"*", "no rule for every name"},
		{"*.*.example.org", "a star stands for whole names"},
		{"a*.example.org", "a star stands for whole names"},
		{"*.", "a host name is missing"},
		{"https://example.org", "hosts and ports"},
		{"sctp://example.org", `"sctp" is not tcp`},
		{"://example.org", `"" is not tcp`},
		{"example.org:", "port is missing"},
		{"example.org:0", "not a number from 1"},
		{"example.org:65536", "not a number from 1"},
		{"example.org:+80", "not a number from 1"},
		{"example.org:http", "not a number from 1"},
		{"icmp://192.0.2.1:7", "icmp has no ports"},
		{"-x.example.org", "begins or ends with a dash"},
		{"example..org", "empty part"},
		{"example.org.", "empty part"},
		{"bücher.example", "xn--"},
		{"10.0.0.1/8", "the block is 10.0.0.0/8"},
		{"10.0.0.0/33", "not a block"},
		{"10.0.0", "not an IP address"},
		{"127.1", "not an IP address"},
		{"127.0.0.1", "loopback is the sandbox itself"},
		{"127.0.0.0/8", "loopback is the sandbox itself"},
		{"[::1]:80", "loopback is the sandbox itself"},
		{"::ffff:127.0.0.1", "loopback is the sandbox itself"},
		{"0x7f000001", "not an IP address"},
		{"2130706433", "not an IP address"},
		{"1.2.3.04", "not an IP address"},
		{"0.0.0.0", "unspecified"},
		{"::", "unspecified"},
		{"224.0.0.0/4", "multicast"},
		{"ff02::1", "multicast"},
		{"fe80::1%eth0", "zone"},
		{"[192.0.2.1]:80", "brackets are for IPv6"},
		{"[2001:db8::1", "closing bracket"},
		{"[2001:db8::1]80", "after the bracket"},
		{"localhost:5432", "localhost is the sandbox itself"},
		{"host.whisk.internal:5432", "whisk's own"},
	} {
		t.Run(c.text, func(t *testing.T) {
			r, err := ParseEgressRule(c.text)
			fault, ok := errors.AsType[*EgressError](err)
			if !ok {
				t.Fatalf("got %+v, %v; want an EgressError", r, err)
			}
			all := fault.Error() + " " + fault.Hint()
			if !strings.Contains(all, c.want) || strings.ContainsAny(fault.Error(), "\n") {
				t.Errorf("got %q, want %q in it", all, c.want)
			}
		})
	}
}

func TestParseEgress(t *testing.T) {
	for _, c := range []struct {
		text string
		mode EgressMode
		n    int
	}{
		{"all", EgressAll, 0}, {"internet", EgressInternet, 0}, {"none", EgressNone, 0},
		{"example.org", EgressList, 1}, {"example.org,EXAMPLE.org,10.0.0.0/8", EgressList, 2}, {"tcp://al", EgressList, 1},
	} {
		e, err := ParseEgress(c.text)
		if err != nil || e.Mode != c.mode || len(e.Rules) != c.n {
			t.Errorf("%q: got %+v, %v", c.text, e, err)
		}
		if again, err := ParseEgress(e.String()); err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("%q: written as %q it is %+v, %v", c.text, e, again, err)
		}
	}
	for _, bad := range []string{"", ",", "ALL", "None", "Ala", "al,AL", "all,example.org", "example.org,none", "example.org,", "al", "intrenet"} {
		if e, err := ParseEgress(bad); err == nil {
			t.Errorf("%q is taken as %+v", bad, e)
		}
	}
	if _, err := ParseEgressList(nil); err == nil {
		t.Error("an empty list is taken")
	}
	var many []string
	for i := range maxEgressRules + 1 {
		many = append(many, netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}).String())
	}
	if _, err := ParseEgressList(many); err == nil {
		t.Errorf("a list of %d rules is taken", len(many))
	}
	if _, err := ParseEgressList(many[:maxEgressRules]); err != nil {
		t.Errorf("a list of %d rules: %v", maxEgressRules, err)
	}
}

func TestEgressRuleAllows(t *testing.T) {
	for _, c := range []struct {
		rule, protocol string
		port           uint16
		want           bool
	}{
		{"example.org", "tcp", 1, true}, {"example.org", "udp", 53, true}, {"example.org", "icmp", 0, false},
		{"example.org:443", "tcp", 443, true}, {"example.org:443", "tcp", 80, false},
		{"udp://example.org:53", "udp", 53, true}, {"udp://example.org:53", "tcp", 53, false},
		{"icmp://192.0.2.1", "icmp", 0, true}, {"icmp://192.0.2.1", "udp", 7, false},
	} {
		r, err := ParseEgressRule(c.rule)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Allows(c.protocol, c.port); got != c.want {
			t.Errorf("%s for %s %d: got %v", c.rule, c.protocol, c.port, got)
		}
	}
}

func TestEgressRuleMatches(t *testing.T) {
	for _, c := range []struct {
		rule, name string
		want       bool
	}{
		{"example.org", "example.org", true}, {"example.org", "www.example.org", false}, {"example.org", "badexample.org", false},
		{"*.example.org", "example.org", false}, {"*.example.org", "a.example.org", true}, {"*.example.org", "a.b.example.org", true},
		{"*.example.org", "badexample.org", false}, {"*.example.org", ".example.org", false}, {"192.0.2.1", "", false}, {"192.0.2.1", "192.0.2.1", false},
	} {
		r, err := ParseEgressRule(c.rule)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Matches(c.name); got != c.want {
			t.Errorf("%s for %q: got %v", c.rule, c.name, got)
		}
	}
}

func TestEgressOfAppsAndNetwork(t *testing.T) {
	p := load(t, `
[app.web]
image = "x"
egress = ["api.example.com", "*.Example.org:443"]
host_ports = [5432, 5432]
[app.db]
image = "x"
egress = "none"
host_ports = []
[app.other]
image = "x"
[network]
egress = ["10.0.0.0/8:5432"]
host_ports = [80]
`)
	if p.Egress != "10.0.0.0/8:5432" || !reflect.DeepEqual(p.HostPorts, []uint16{80}) {
		t.Errorf("network: %q %v", p.Egress, p.HostPorts)
	}
	for i, want := range []App{{Egress: "api.example.com,*.example.org:443", HostPorts: []uint16{5432}}, {Egress: "none", HostPorts: []uint16{}}, {}} {
		if got := p.Apps[i]; got.Egress != want.Egress || !reflect.DeepEqual(got.HostPorts, want.HostPorts) {
			t.Errorf("app %s: %q %#v", got.Name, got.Egress, got.HostPorts)
		}
	}
}

func FuzzParseEgress(f *testing.F) {
	for _, s := range []string{"all", "none", "api.example.com,*.example.org:443", "10.0.0.0/8:5432,[2001:db8::/32]:443", "udp://192.0.2.53:53", "icmp://::1", "tcp://a:1", "127.1", "0x7f.1", "[fe80::1%a]:1", "*.a", "a,,b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseEgress(s)
		if err != nil {
			if strings.ContainsAny(oneLine(err.Error()), "\n\r") {
				t.Errorf("%q: error of several lines: %q", s, err)
			}
			return
		}
		again, err := ParseEgress(e.String())
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Fatalf("%q is written as %q, which is %+v, %v", s, e, again, err)
		}
		for _, r := range e.Rules {
			if (r.Name == "") == !r.Prefix.IsValid() {
				t.Errorf("%q has the rule %+v", s, r)
			}
			if r.Prefix.IsValid() && (r.Prefix.Addr().Is4In6() || r.Prefix.Masked() != r.Prefix || r.Prefix.Addr().IsLoopback()) {
				t.Errorf("%q has the block %s", s, r.Prefix)
			}
			if r.Name != "" && (looksNumeric(r.Name) || !r.Subdomains && !r.Matches(r.Name)) {
				t.Errorf("%q has the name %q", s, r.Name)
			}
		}
	})
}
