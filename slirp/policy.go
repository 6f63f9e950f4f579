package slirp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/whisk-sandbox/whisk/config"
)

// flow is what leaves the network as one thing: what the egress policy decides on.
type flow struct {
	proto    uint8          // IP protocol: protoTCP, protoUDP, protoICMP or protoICMPv6
	src, dst netip.AddrPort // ICMP echo: src's port is the identifier, dst's is 0
}

// source is the address of the sandbox that the flow is from.
func (f flow) source() netip.Addr { return f.src.Addr() }

// protocol is the flow's protocol in the words of rules and of the log.
func (f flow) protocol() string {
	switch f.proto {
	case protoTCP:
		return "tcp"
	case protoUDP:
		return "udp"
	case protoICMP, protoICMPv6:
		return "icmp"
	case protoSCTP:
		return "sctp"
	case protoGRE:
		return "gre"
	}
	return fmt.Sprintf("ip-%d", f.proto)
}

// action is what becomes of a flow.
type action uint8

const (
	allow action = iota
	deny         // refused where the app can see it: TCP reset, else ICMP administratively prohibited
	drop         // not answered: multicast and broadcast, whose answers would come from nobody
)

// verdict is what decide makes of a flow, and why.
type verdict struct {
	action action
	name   string // what the sandbox knows the destination as, from its own DNS; empty: it used the address
	why    string // why it is denied; empty otherwise
	// byName says that only the name allows the flow, so that what a TCP connection's first bytes say of its server must be
	// allowed too.
	byName bool
	// noQUIC says that QUIC, which hides its server's name, is not meant: the rule about the name does not say udp://.
	noQUIC bool
	// host says that a rule names this very address of the host's.
	host bool
}

// Addresses that answer for the machine or its cloud account though they look like any other. They hold keys to
// the account, and a sandbox that may use "the network" is not meant to have them. Most clouds have theirs in
// 169.254.0.0/16 or fe80::/10, which are closed as a whole.
var metadata = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"),    // link-local too; here so that the list is whole
	netip.MustParseAddr("168.63.129.16"),      // Azure's host, a public address
	netip.MustParseAddr("100.100.100.200"),    // Alibaba Cloud
	netip.MustParseAddr("192.0.0.192"),        // Oracle Cloud Classic
	netip.MustParseAddr("fd00:ec2::254"),      // AWS, IPv6
	netip.MustParseAddr("fd00:ec2::23"),       // AWS: credentials of EKS pods
	netip.MustParseAddr("fd20:ce::254"),       // Google, IPv6
	netip.MustParseAddr("fd00:c1::a9fe:a9fe"), // Oracle Cloud, IPv6
	netip.MustParseAddr("fd00:42::42"),        // Scaleway, IPv6
	netip.MustParseAddr("fd00:a9fe:a9fe::1"),  // Akamai (Linode), IPv6
	netip.MustParseAddr("fd00:100::100:200"),  // Alibaba Cloud, IPv6
}

func isMetadata(a netip.Addr) bool {
	for _, m := range metadata {
		if a == m {
			return true
		}
	}
	return false
}

// hostItself is why an address of this machine's is denied.
const hostItself = "it is the host itself"

// portQUIC is where HTTP/3 is spoken over UDP.
const portQUIC = 443

// decide is the egress policy. subnets are the network's own, known is what the sandbox's DNS has called the destination,
// and isHost reports whether the kernel of the host would take an address for one of its own. It is the one place that
// decides on flows; tcpFlows.inspect only looks whether a connection is to the name that it was allowed by.
func decide(e config.Egress, subnets [2]netip.Prefix, f flow, known []string, isHost func(netip.Addr) bool) verdict {
	dst := f.dst.Addr().WithZone("")
	if dst.IsMulticast() || dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return verdict{action: drop, why: "multicast and broadcast do not leave"}
	}
	src := f.src.Addr()
	if !subnets[0].Contains(src) && !subnets[1].Contains(src) {
		return verdict{action: drop, why: "no sandbox has this source"}
	}
	v := verdict{action: deny}
	if len(known) > 0 {
		v.name = known[0]
	}
	dst = dst.Unmap() // never seen on an honest wire (RFC 4291 §2.5.5.2), but connect(2) on the host would go there
	switch {
	case e.Mode == config.EgressNone:
		v.why = "egress is none"
		return v
	case dst.IsUnspecified(), dst.IsLoopback(), dst.Is4() && dst.As4()[0] == 0:
		// 0.0.0.0/8 is "this network", RFC 1122 §3.2.1.3; some kernels take it for loopback.
		v.why = hostItself
		return v
	case subnets[0].Contains(dst), subnets[1].Contains(dst):
		v.why = "no sandbox has this address"
		return v
	}
	if e.Mode == config.EgressList {
		return decideList(e.Rules, f, dst, known, isHost, v)
	}
	in := translations(dst)
	switch {
	case isMetadata(dst), slices.ContainsFunc(in, isMetadata):
		v.why = "it is a cloud metadata address, which only a rule of a list opens"
	case dst.IsLinkLocalUnicast(), slices.ContainsFunc(in, netip.Addr.IsLinkLocalUnicast):
		v.why = "it is a link-local address, which only a rule of a list opens"
	case isHost(dst), slices.ContainsFunc(in, netip.Addr.IsLoopback), slices.ContainsFunc(in, isHost):
		v.why = hostItself
	case e.Mode == config.EgressInternet && !public(dst):
		v.why = "egress is internet, and this is not a public address"
	case e.Mode != config.EgressAll && e.Mode != config.EgressInternet:
		v.why = fmt.Sprintf("egress %q is not known", e.Mode)
	default:
		v.action = allow
	}
	return v
}

// decideList goes through the rules: those about addresses first, since they ask nothing of a connection's bytes.
func decideList(rules []config.EgressRule, f flow, dst netip.Addr, known []string, isHost func(netip.Addr) bool, v verdict) verdict {
	protocol, port := f.protocol(), f.dst.Port()
	own := isHost(dst)
	literal := own || slices.ContainsFunc(translations(dst), func(in netip.Addr) bool {
		return in.IsLoopback() || in.IsLinkLocalUnicast() || isMetadata(in) || isHost(in)
	})
	for _, r := range rules {
		if r.Allows(protocol, port) && coversAddr(r, dst) && (!literal || r.Prefix.IsSingleIP()) {
			v.action, v.host = allow, own
			return v
		}
	}
	v.why = "no rule allows this address"
	switch {
	case own:
		v.why = hostItself
		return v
	case !public(dst), literal, isMetadata(dst): // whoever answers for a name could point it there
		return v
	}
	for _, name := range known {
		v.why = fmt.Sprintf("no rule allows %s to %s port %d", protocol, name, port)
		for _, r := range rules {
			switch {
			case !r.Matches(name) || !r.Allows(protocol, port):
			case protocol == "udp" && port == portQUIC && r.Protocol == "":
				v.why = hiddenByQUIC
			case v.action == allow && r.Protocol == "": // by a rule before
			default:
				v.action, v.name, v.why, v.byName = allow, name, "", true
				if v.noQUIC = protocol == "udp" && r.Protocol == ""; !v.noQUIC {
					return v
				}
			}
		}
		if v.action == allow {
			return v
		}
	}
	return v
}

// hiddenByQUIC is why a rule about a name does not open QUIC.
const hiddenByQUIC = "QUIC hides which host it is for: a rule must say udp://"

// isQUIC reports whether a datagram begins a connection of QUIC, versions 1 and 2 and the drafts that were spoken (RFC 8999
// §5.1, RFC 9000 §17.2, RFC 9369 §3).
func isQUIC(b []byte) bool {
	if len(b) < 7 || b[0]&0xc0 != 0xc0 {
		return false
	}
	switch v := binary.BigEndian.Uint32(b[1:]); {
	case v == 1, v == 0x6b3343cf, v>>8 == 0xff0000:
		return b[5] <= 20 // the length of a connection's id
	}
	return false
}

// coversAddr reports whether a rule is about this address. Link-local and metadata addresses are only covered by rules that
// mean them: a block of such addresses, not 0.0.0.0/0.
func coversAddr(r config.EgressRule, a netip.Addr) bool {
	if !r.Prefix.IsValid() || !r.Prefix.Contains(a) {
		return false
	}
	switch {
	case a.IsLinkLocalUnicast():
		return r.Prefix.Addr().IsLinkLocalUnicast() && r.Prefix.Bits() >= 10 // fe80::/10, 169.254.0.0/16
	case isMetadata(a) && a.Is4():
		return r.Prefix.IsSingleIP()
	case isMetadata(a):
		return r.Prefix.Bits() >= 32 // fd00:ec2::/32
	}
	return true
}

// allowsName reports whether a list allows a name for this protocol and port.
func allowsName(rules []config.EgressRule, name, protocol string, port uint16) bool {
	for _, r := range rules {
		if r.Matches(name) && r.Allows(protocol, port) {
			return true
		}
	}
	return false
}
