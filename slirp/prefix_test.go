package slirp

import (
	"fmt"
	"net/netip"
	"testing"
)

func prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func TestChoosePrefixes(t *testing.T) {
	first4, first6 := ChoosePrefixes("shop", nil)
	for _, c := range []struct {
		name  string
		taken []netip.Prefix
		in    string // block that the choice must be in
		same  bool   // as with nothing taken
	}{
		{"nothing taken", nil, "10.0.0.0/8", true},
		{"default routes", prefixes("0.0.0.0/0", "::/0"), "10.0.0.0/8", true},
		{"a VPN's default route in halves", prefixes("0.0.0.0/1", "128.0.0.0/1", "2000::/3"), "10.0.0.0/8", true},
		{"another network", prefixes("192.0.2.0/24"), "10.0.0.0/8", true},
		{"its first choice", []netip.Prefix{first4, first6}, "10.0.0.0/8", false},
		{"an address in its first choice", []netip.Prefix{netip.PrefixFrom(first4.Addr().Next(), 32), netip.PrefixFrom(first6.Addr().Next(), 128)}, "10.0.0.0/8", false},
		{"a company's 10/8", prefixes("10.0.0.0/8"), "172.16.0.0/12", false},
		{"all of RFC 1918", prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"), "100.64.0.0/10", false},
		{"everything", prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"), "10.0.0.0/8", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			v4, v6 := ChoosePrefixes("shop", c.taken)
			if !netip.MustParsePrefix(c.in).Overlaps(v4) || v4.Bits() != 24 || v4 != v4.Masked() {
				t.Errorf("got %s, want a /24 in %s", v4, c.in)
			}
			if v6.Bits() != 64 || v6 != v6.Masked() || v6.Addr().As16()[0] != 0xfd {
				t.Errorf("got %s, want a /64 in fd00::/8", v6)
			}
			if (v4 == first4) != c.same {
				t.Errorf("got %s, with nothing taken %s", v4, first4)
			}
		})
	}
}

func TestChoosePrefixesDiffersByName(t *testing.T) {
	seen4, seen6 := map[netip.Prefix]string{}, map[netip.Prefix]string{}
	for i := range 50 {
		name := fmt.Sprintf("project-%d", i)
		v4, v6 := ChoosePrefixes(name, nil)
		if seen4[v4] != "" || seen6[v6] != "" {
			t.Errorf("%s has the subnets %s %s of %s%s", name, v4, v6, seen4[v4], seen6[v6])
		}
		seen4[v4], seen6[v6] = name, name
	}
}

func TestHostPrefixes(t *testing.T) {
	internet(t)
	all, err := HostPrefixes()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{hostV4, inetV4, hostV6, inetV6, "127.0.0.1"} {
		found := false
		for _, p := range all {
			found = found || p.Contains(netip.MustParseAddr(want))
			if p.Bits() == 0 {
				t.Errorf("lists a default route")
			}
		}
		if !found {
			t.Errorf("%s is in none of %v", want, all)
		}
	}
}
