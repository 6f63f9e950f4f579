package slirp

import "net/netip"

// flow is what leaves the network as one thing: what the egress policy decides on.
type flow struct {
	proto    uint8          // IP protocol: protoTCP, protoUDP, protoICMP or protoICMPv6
	src, dst netip.AddrPort // ICMP echo: src's port is the identifier, dst's is 0
}

// verdict is what becomes of a flow.
type verdict uint8

const (
	allow verdict = iota
	deny          // refused where the app can see it: TCP reset, else ICMP administratively prohibited
	drop          // not answered: multicast and broadcast, whose answers would come from nobody
)

// Addresses that answer for the machine or its cloud account though they look like any other. They hold keys to
// the account, and a sandbox that may use "the network" is not meant to have them.
var metadata = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"), // link-local too; here so that the list is whole
	netip.MustParseAddr("fd00:ec2::254"),   // AWS, IPv6
}

// decide is the egress policy: egress is "all" or "none", subnets are the network's own, and isHost reports whether the
// kernel of the host would take an address for one of its own. It is the one place that decides.
func decide(egress string, subnets [2]netip.Prefix, f flow, isHost func(netip.Addr) bool) verdict {
	dst := f.dst.Addr().WithZone("")
	if dst.IsMulticast() || dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return drop
	}
	src := f.src.Addr()
	if !subnets[0].Contains(src) && !subnets[1].Contains(src) {
		return drop // a source that no sandbox has
	}
	if egress != "all" {
		return deny
	}
	if dst.Is4In6() {
		dst = dst.Unmap() // never seen on an honest wire (RFC 4291 §2.5.5.2), but connect(2) on the host would go there
	}
	switch {
	case dst.IsUnspecified(), dst.IsLoopback(), dst.IsLinkLocalUnicast():
		return deny
	case dst.Is4() && dst.As4()[0] == 0: // "this network", RFC 1122 §3.2.1.3: some kernels take it for loopback
		return deny
	case subnets[0].Contains(dst), subnets[1].Contains(dst):
		return deny
	}
	for _, m := range metadata {
		if dst == m {
			return deny
		}
	}
	if isHost(dst) {
		return deny
	}
	return allow
}
