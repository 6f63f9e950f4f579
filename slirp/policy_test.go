package slirp

import (
	"net/netip"
	"strings"
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

func TestDecideByRules(t *testing.T) {
	subnets := [2]netip.Prefix{netip.MustParsePrefix("10.1.2.0/24"), netip.MustParsePrefix("fd00:1::/64")}
	host := func(a netip.Addr) bool {
		return a == netip.MustParseAddr("8.8.4.4") || a == netip.MustParseAddr("192.168.1.5")
	}
	for _, c := range []struct {
		name, egress string
		proto        uint8
		dst          string
		known        string // names of dst
		want         action
		by           string // the name that allows it
	}{
		{"a name, known", "a.test", protoTCP, "8.0.0.1:443", "a.test", allow, "a.test"},
		{"a name, not known", "a.test", protoTCP, "8.0.0.1:443", "", deny, ""},
		{"another name", "a.test", protoTCP, "8.0.0.1:443", "b.test", deny, ""},
		{"two names, the second allowed", "a.test", protoTCP, "8.0.0.1:443", "b.test a.test", allow, "a.test"},
		{"a name on another port", "a.test:80", protoTCP, "8.0.0.1:443", "a.test", deny, ""},
		{"a name below a wildcard", "*.test", protoTCP, "8.0.0.1:443", "a.b.test", allow, "a.b.test"},
		{"UDP by name", "a.test", protoUDP, "8.0.0.1:53", "a.test", allow, "a.test"},
		{"QUIC by name", "a.test", protoUDP, "8.0.0.1:443", "a.test", deny, ""},
		{"QUIC by name and port", "a.test:443", protoUDP, "8.0.0.1:443", "a.test", deny, ""},
		{"QUIC asked for", "a.test,udp://a.test:443", protoUDP, "8.0.0.1:443", "a.test", allow, "a.test"},
		{"QUIC by address", "8.0.0.1", protoUDP, "8.0.0.1:443", "a.test", allow, ""},
		{"TCP where the rule is for UDP", "udp://a.test", protoTCP, "8.0.0.1:443", "a.test", deny, ""},
		{"ping where the rule is for TCP and UDP", "8.0.0.1", protoICMP, "8.0.0.1:0", "", deny, ""},
		{"ping", "icmp://8.0.0.1", protoICMP, "8.0.0.1:0", "", allow, ""},
		{"ping, IPv6", "icmp://2600::1", protoICMPv6, "[2600::1]:0", "", allow, ""},
		{"ping by name", "icmp://a.test", protoICMP, "8.0.0.1:0", "a.test", allow, "a.test"},
		{"an address before a name", "a.test,8.0.0.1", protoTCP, "8.0.0.1:443", "a.test", allow, ""},
		{"a block", "10.0.0.0/8:5432", protoTCP, "10.9.0.1:5432", "", allow, ""},
		{"a block on another port", "10.0.0.0/8:5432", protoTCP, "10.9.0.1:22", "", deny, ""},
		{"a block, IPv6", "[2600::/16]:443", protoTCP, "[2600::1]:443", "", allow, ""},
		{"a mapped address", "8.0.0.1", protoTCP, "[::ffff:8.0.0.1]:1", "", allow, ""},
		{"the network's own addresses", "10.0.0.0/8", protoTCP, "10.1.2.99:1", "", deny, ""},
		{"a name of a private address", "a.test", protoTCP, "192.168.1.6:80", "a.test", deny, ""},
		{"a name of loopback", "a.test", protoTCP, "127.0.0.1:80", "a.test", deny, ""},
		{"a name of metadata", "a.test", protoTCP, "169.254.169.254:80", "a.test", deny, ""},
		{"a name of the host", "a.test", protoTCP, "8.8.4.4:80", "a.test", deny, ""},
		{"everything does not mean metadata", "0.0.0.0/0", protoTCP, "169.254.169.254:80", "", deny, ""},
		{"everything does not mean metadata, IPv6", "::/0", protoTCP, "[fd00:ec2::254]:80", "", deny, ""},
		{"unique local does not mean metadata", "fc00::/7", protoTCP, "[fd00:ec2::254]:80", "", deny, ""},
		{"metadata by its address", "169.254.169.254:80", protoTCP, "169.254.169.254:80", "", allow, ""},
		{"metadata by its address, IPv6", "fd00:ec2::254", protoTCP, "[fd00:ec2::254]:80", "", allow, ""},
		{"link-local by its block", "169.254.0.0/16", protoTCP, "169.254.1.1:80", "", allow, ""},
		{"a block with the host in it", "8.0.0.0/8", protoTCP, "8.8.4.4:80", "", deny, ""},
		{"the host by its address", "192.168.1.5:80", protoTCP, "192.168.1.5:80", "", allow, ""},
		{"the host by its address on another port", "192.168.1.5:80", protoTCP, "192.168.1.5:81", "", deny, ""},
		{"a translator's metadata", "::/0", protoTCP, "[64:ff9b::a9fe:a9fe]:80", "", deny, ""},
		{"a translator's host", "64:ff9b::/96", protoTCP, "[64:ff9b::808:404]:80", "", deny, ""},
		{"a translator's address", "64:ff9b::/96", protoTCP, "[64:ff9b::800:1]:80", "", allow, ""},
		{"internet", "internet", protoTCP, "8.0.0.1:1", "", allow, ""},
		{"internet, LAN", "internet", protoTCP, "192.168.1.6:1", "", deny, ""},
		{"internet, carrier's", "internet", protoUDP, "100.100.100.200:1", "", deny, ""},
		{"internet, unique local", "internet", protoTCP, "[fd00:2::1]:1", "", deny, ""},
		{"internet, translator's LAN", "internet", protoTCP, "[64:ff9b::c0a8:106]:1", "", deny, ""},
		{"internet, host", "internet", protoTCP, "8.8.4.4:1", "", deny, ""},
		{"all, translator's metadata", "all", protoTCP, "[64:ff9b::a9fe:a9fe]:80", "", deny, ""},
		{"all, translator's host", "all", protoTCP, "[64:ff9b::c0a8:105]:80", "", deny, ""},
		{"all, Google's metadata", "all", protoTCP, "[fd20:ce::254]:80", "", deny, ""},
		{"all, Azure's metadata, a public address", "all", protoTCP, "168.63.129.16:80", "", deny, ""},
		{"internet, Azure's metadata", "internet", protoTCP, "168.63.129.16:80", "", deny, ""},
		{"internet, Azure's metadata through a translator", "internet", protoTCP, "[64:ff9b::a83f:8110]:80", "", deny, ""},
		{"a name of Azure's metadata", "a.test", protoTCP, "168.63.129.16:80", "a.test", deny, ""},
		{"a name of Azure's metadata through a translator", "a.test", protoTCP, "[64:ff9b::a83f:8110]:80", "a.test", deny, ""},
		{"a block with Azure's metadata in it", "168.63.0.0/16", protoTCP, "168.63.129.16:80", "", deny, ""},
		{"Azure's metadata by its address", "168.63.129.16:80", protoTCP, "168.63.129.16:80", "", allow, ""},
		{"all, Alibaba's metadata", "all", protoTCP, "100.100.100.200:80", "", deny, ""},
		{"all, Alibaba's metadata, IPv6", "all", protoTCP, "[fd00:100::100:200]:80", "", deny, ""},
		{"all, Oracle's metadata", "all", protoTCP, "192.0.0.192:80", "", deny, ""},
		{"all, Oracle's metadata, IPv6", "all", protoTCP, "[fd00:c1::a9fe:a9fe]:80", "", deny, ""},
		{"all, Scaleway's metadata", "all", protoTCP, "[fd00:42::42]:80", "", deny, ""},
		{"all, Linode's metadata", "all", protoTCP, "[fd00:a9fe:a9fe::1]:80", "", deny, ""},
		{"all, credentials of ECS tasks", "all", protoTCP, "169.254.170.2:80", "", deny, ""},
		{"all, credentials of EKS pods", "all", protoTCP, "[fd00:ec2::23]:80", "", deny, ""},
		{"all, a site's translator, metadata", "all", protoTCP, "[64:ff9b:1::a9fe:a9fe]:80", "", deny, ""},
		{"all, a site's translator of 48 bits, metadata", "all", protoTCP, "[64:ff9b:1:a9fe:a9:fe00::]:80", "", deny, ""},
		{"all, a site's translator, the host", "all", protoTCP, "[64:ff9b:1:fff::c0a8:105]:80", "", deny, ""},
		{"all, a site's translator, another", "all", protoTCP, "[64:ff9b:1::800:1]:80", "", allow, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := config.ParseEgress(c.egress)
			if err != nil {
				t.Fatal(err)
			}
			dst := netip.MustParseAddrPort(c.dst)
			src := netip.MustParseAddr("10.1.2.3")
			if dst.Addr().Is6() {
				src = netip.MustParseAddr("fd00:1::3")
			}
			v := decide(e, subnets, flow{c.proto, netip.AddrPortFrom(src, 40000), dst}, strings.Fields(c.known), host)
			if v.action != c.want || v.byName != (c.by != "") || c.by != "" && v.name != c.by {
				t.Errorf("got %+v, want action %d by name %q", v, c.want, c.by)
			}
			if (v.action == allow) != (v.why == "") {
				t.Errorf("action %d has the reason %q", v.action, v.why)
			}
		})
	}
}

func TestPublic(t *testing.T) {
	for _, c := range []struct {
		addrs string
		want  bool
	}{
		{"8.8.8.8 1.1.1.1 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.0.0.9 192.0.1.1 192.169.0.1 198.17.0.1 223.255.255.255 2600::1 2a00::1 2001:4860::8888 2001:20::1 64:ff9b::808:808 ::ffff:8.8.8.8", true},
		{"0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.1.2.3 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 240.0.0.1 255.255.255.255", false},
		{":: ::1 ::2 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::1 100::1 2001::1 2001:db8::1 2002:7f00:1:: 3fff::1 4000::1 5f00::1 fc00::1 fd00::1 fe80::1 fec0::1 ff02::1 2600::1%eth0", false},
	} {
		for _, s := range strings.Fields(c.addrs) {
			if got := public(netip.MustParseAddr(s)); got != c.want {
				t.Errorf("%s: public is %v", s, got)
			}
		}
	}
}
