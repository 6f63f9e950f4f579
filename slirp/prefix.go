package slirp

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// private are the blocks that subnets are taken from: RFC 1918's, then the shared address space of RFC 6598 for hosts
// whose VPN takes all of those.
func private() []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10}), 8),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16}), 12),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168}), 16),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10),
	}
}

// ChoosePrefixes picks the subnets of the network called name: a /24 of private IPv4 space and a /64 of unique local
// IPv6 space (RFC 4193), the same for the same name wherever they are free. It avoids what overlaps taken, usually
// HostPrefixes and the subnets of other networks, since a host address that a network also uses would be out of its
// sandboxes' reach. If everything is taken, it returns its first choice.
func ChoosePrefixes(name string, taken []netip.Prefix) (v4, v6 netip.Prefix) {
	sum := sha256.Sum256([]byte(name))
	free := func(p netip.Prefix) bool {
		for _, t := range taken {
			if t.Bits() >= 4 && t.Overlaps(p) { // shorter ones are default routes in parts, as VPNs write them
				return false
			}
		}
		return true
	}
	for _, block := range private() {
		base := binary.BigEndian.Uint32(block.Addr().AsSlice())
		count := uint32(1) << (24 - block.Bits())
		for i := range count {
			n := base + (binary.BigEndian.Uint32(sum[:])+i)%count<<8
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8)}), 24)
			if !v4.IsValid() {
				v4 = p
			}
			if free(p) {
				return p, chooseIPv6(sum, free)
			}
		}
	}
	return v4, chooseIPv6(sum, free)
}

// chooseIPv6 takes 40 bits of global id and 16 of subnet from the hash, and counts the subnet on where it is taken.
func chooseIPv6(sum [sha256.Size]byte, free func(netip.Prefix) bool) netip.Prefix {
	var a [16]byte
	a[0] = 0xfd
	copy(a[1:8], sum[4:])
	first := netip.PrefixFrom(netip.AddrFrom16(a), 64)
	subnet := binary.BigEndian.Uint16(a[6:])
	for i := range 1 << 16 {
		binary.BigEndian.PutUint16(a[6:], subnet+uint16(i))
		if p := netip.PrefixFrom(netip.AddrFrom16(a), 64); free(p) {
			return p
		}
	}
	return first
}

// HostPrefixes lists what the calling thread's network namespace has addresses in or routes to, but for default routes.
func HostPrefixes() ([]netip.Prefix, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening rtnetlink: %w", err)
	}
	defer h.Close()
	routes, err := h.RouteListFiltered(unix.AF_UNSPEC, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("listing the host's routes: %w", err)
	}
	var out []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		a, ok := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		if a = a.Unmap(); !ok || bits == 0 || bits > a.BitLen() {
			continue
		}
		out = append(out, netip.PrefixFrom(a, bits))
	}
	return out, nil
}

// CheckSubnet says why p cannot be a network's subnet, or returns nil: it is a /8 to /29 of IPv4, or at most a /112 of IPv6.
func CheckSubnet(p netip.Prefix) error {
	a := p.Addr()
	switch {
	case !p.IsValid() || a.Is4In6():
		return fmt.Errorf("subnet %q is none of IPv4 or IPv6", p)
	case a.Is4() && (p.Bits() < 8 || p.Bits() > 29):
		return fmt.Errorf("IPv4 subnet %q is not a /8 to /29", p)
	case a.Is6() && p.Bits() > 112:
		return fmt.Errorf("IPv6 subnet %q is not at most a /112", p)
	}
	return nil
}
