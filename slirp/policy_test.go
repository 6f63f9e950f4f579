package slirp

import (
	"net/netip"
	"testing"

	"github.com/whisk-sandbox/whisk/config"
)

func TestDecide(t *testing.T) {
	subnets := [2]netip.Prefix{netip.MustParsePrefix("10.1.2.0/24"), netip.MustParsePrefix("fd00:1::/64")}
	host := func(a netip.Addr) bool {
		return a == netip.MustParseAddr("192.168.1.5") || a == netip.MustParseAddr("2001:db8::5")
	}
	const src4, src6 = "10.1.2.3", "fd00:1::3"
	for _, c := range []struct {
		name, egress, src, dst string
		want                   action
	}{
		{"internet", "all", src4, "192.0.2.1", allow},
		{"internet, IPv6", "all", src6, "2001:db8::1", allow},
		{"LAN", "all", src4, "192.168.1.6", allow},
		{"unique local", "all", src6, "fd00:2::1", allow},
		{"none", "none", src4, "192.0.2.1", deny},
		{"none, IPv6", "none", src6, "2001:db8::1", deny},
		{"unknown policy", "", src4, "192.0.2.1", deny},
		{"loopback", "all", src4, "127.0.0.1", deny},
		{"any loopback", "all", src4, "127.255.1.1", deny},
		{"loopback, IPv6", "all", src6, "::1", deny},
		{"loopback, mapped", "all", src6, "::ffff:127.0.0.1", deny},
		{"loopback with a zone", "all", src6, "::1%lo", deny},
		{"unspecified", "all", src4, "0.0.0.0", deny},
		{"this network", "all", src4, "0.1.2.3", deny},
		{"unspecified, IPv6", "all", src6, "::", deny},
		{"unspecified, mapped", "all", src6, "::ffff:0.0.0.0", deny},
		{"host's address", "all", src4, "192.168.1.5", deny},
		{"host's address, mapped", "all", src6, "::ffff:192.168.1.5", deny},
		{"host's address, IPv6", "all", src6, "2001:db8::5", deny},
		{"metadata", "all", src4, "169.254.169.254", deny},
		{"metadata, mapped", "all", src6, "::ffff:169.254.169.254", deny},
		{"metadata, IPv6", "all", src6, "fd00:ec2::254", deny},
		{"link-local", "all", src4, "169.254.1.1", deny},
		{"link-local, IPv6", "all", src6, "fe80::1", deny},
		{"own subnet", "all", src4, "10.1.2.99", deny},
		{"own subnet, IPv6", "all", src6, "fd00:1::99", deny},
		{"multicast", "all", src4, "224.0.0.251", drop},
		{"multicast, IPv6", "all", src6, "ff02::fb", drop},
		{"broadcast", "all", src4, "255.255.255.255", drop},
		{"multicast under none", "none", src4, "239.1.1.1", drop},
		{"nobody's source", "all", "10.9.9.9", "192.0.2.1", drop},
		{"nobody's source, IPv6", "all", "2001:db8::9", "2001:db8::1", drop},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, proto := range []uint8{protoTCP, protoUDP, protoICMP} {
				f := flow{proto, netip.AddrPortFrom(netip.MustParseAddr(c.src), 40000), netip.AddrPortFrom(netip.MustParseAddr(c.dst), 80)}
				if got := decide(config.Egress{Mode: config.EgressMode(c.egress)}, subnets, f, nil, host).action; got != c.want {
					t.Errorf("protocol %d from %s to %s: got verdict %d, want %d", proto, c.src, c.dst, got, c.want)
				}
			}
		})
	}
}
