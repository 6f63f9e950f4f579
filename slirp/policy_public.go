package slirp

import "net/netip"

// special are the blocks that IANA's special-purpose registries (RFC 6890, iana-ipv4-special-registry and
// iana-ipv6-special-registry as of 2025) do not call globally reachable, with those that are deprecated. Blocks
// within others that are global are in global.
var special = blocks(
	"0.0.0.0/8",       // this network
	"10.0.0.0/8",      // private use
	"100.64.0.0/10",   // shared address space: carriers, and overlays such as Tailscale
	"127.0.0.0/8",     // loopback
	"169.254.0.0/16",  // link-local
	"172.16.0.0/12",   // private use
	"192.0.0.0/24",    // IETF protocol assignments
	"192.0.2.0/24",    // documentation
	"192.88.99.0/24",  // 6to4 relays, deprecated
	"192.168.0.0/16",  // private use
	"198.18.0.0/15",   // benchmarking
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"224.0.0.0/4",     // multicast
	"240.0.0.0/4",     // reserved, broadcast
	"2001::/23",       // IETF protocol assignments, Teredo
	"2001:db8::/32",   // documentation
	"2002::/16",       // 6to4, deprecated; it holds an IPv4 address
	"3fff::/20",       // documentation
)

var global = blocks(
	"192.0.0.9/32", "192.0.0.10/32", // Port Control Protocol and TURN anycast
	"2001:1::1/128", "2001:1::2/128", "2001:1::3/128", // the same for IPv6, DNS-SD
	"2001:3::/32", "2001:4:112::/48", "2001:20::/28", "2001:30::/28", // AMT, AS112, ORCHIDv2, DRIP
)

func blocks(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// unicast6 is all of IPv6 that has been given out for use between networks (RFC 4291 §2.4, IANA's
// ipv6-address-space). What is outside of it, such as fc00::/7, is special or nobody's.
var unicast6 = netip.MustParsePrefix("2000::/3")

// nat64 is the well-known prefix of translators (RFC 6052 §2.1): its last 32 bits are an IPv4 address.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// embedded is the IPv4 address that a translator on the way would make of a, or a itself.
func embedded(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if nat64.Contains(a) {
		b := a.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}

// nat64Local is for translators of a site's own (RFC 8215), with prefixes of several lengths in it (RFC 6052 §2.2).
var nat64Local = netip.MustParsePrefix("64:ff9b:1::/48")

// translations are the IPv4 addresses that a translator on the way could make of a.
func translations(a netip.Addr) (out []netip.Addr) {
	if in := embedded(a); in != a {
		return []netip.Addr{in}
	}
	if !nat64Local.Contains(a) {
		return nil
	}
	b := a.As16()
	for _, at := range [][4]int{{6, 7, 9, 10}, {7, 9, 10, 11}, {9, 10, 11, 12}, {12, 13, 14, 15}} { // /48, /56, /64, /96
		if in := netip.AddrFrom4([4]byte{b[at[0]], b[at[1]], b[at[2]], b[at[3]]}); in.As4()[0] != 0 {
			out = append(out, in)
		}
	}
	return out
}

// Public reports whether an address belongs to the internet at large: what egress "internet" and rules about names open.
func Public(a netip.Addr) bool { return public(a) }

// public reports whether an address belongs to the internet at large, and not to a host, a link, a site or nobody.
func public(a netip.Addr) bool {
	if a.Zone() != "" {
		return false
	}
	a = embedded(a)
	if a.Is6() && !unicast6.Contains(a) {
		return false
	}
	in := func(list []netip.Prefix) bool {
		for _, p := range list {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	return in(global) || !in(special)
}
