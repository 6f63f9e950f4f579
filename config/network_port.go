package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// PortSelector picks published ports by their side of the host.
type PortSelector struct {
	HostIP   netip.Addr `json:"host_ip,omitzero"` // the zero Addr: any
	Host     uint16     `json:"host"`             // first of a range
	Count    uint16     `json:"count"`            // its length, at least 1
	App      uint16     `json:"app,omitempty"`    // first port in the sandbox; 0: any
	Protocol string     `json:"protocol"`         // "tcp" or "udp"
}

// ParsePortSelector reads what whisk port --rm takes: [ip:]host[:app][/tcp|udp], where host and app may be ranges of equal
// length, and an IPv6 address stands in brackets. It reads what Port.String writes of a port with a host port.
func ParsePortSelector(s string) (PortSelector, error) {
	fail := func(format string, args ...any) (PortSelector, error) {
		return PortSelector{}, fmt.Errorf("port %q: %s", clip(s), fmt.Sprintf(format, args...))
	}
	const form = "want [ip:]host[:app][/tcp|udp]"
	if hasControl(s) {
		return fail("%v", errControl)
	}
	sel := PortSelector{Protocol: "tcp"}
	rest, protocol, given := strings.Cut(s, "/")
	if given {
		if sel.Protocol = strings.ToLower(protocol); sel.Protocol != "tcp" && sel.Protocol != "udp" {
			return fail("protocol %q is not tcp or udp", protocol)
		}
	}
	ip := ""
	switch {
	case strings.HasPrefix(rest, "["):
		var ok bool
		if ip, rest, ok = strings.Cut(rest[1:], "]:"); !ok {
			return fail(form)
		}
	case strings.Count(rest, ":") > 2:
		return fail("an IPv6 address needs brackets: [::1]:8080")
	default:
		if first, after, ok := strings.Cut(rest, ":"); ok && (strings.Contains(after, ":") || strings.Contains(first, ".")) {
			ip, rest = first, after
		}
	}
	if ip != "" {
		a, err := netip.ParseAddr(ip)
		if err != nil || a.Zone() != "" {
			return fail("%q is not an IP address; %s", ip, form)
		}
		sel.HostIP = a.Unmap()
	}
	host, app, hasApp := strings.Cut(rest, ":")
	first, last, err := portRange(host)
	if err != nil {
		return fail("host port %v", err)
	}
	if first == 0 {
		return fail("the host's port must be 1 to 65535")
	}
	sel.Host, sel.Count = first, last-first+1
	if hasApp {
		from, to, err := portRange(app)
		if err != nil {
			return fail("app port %v", err)
		}
		if from == 0 || to-from != last-first {
			return fail("the ranges must be equally long, and begin with 1 at least")
		}
		sel.App = from
	}
	return sel, nil
}

// Selects reports whether a published port is meant. hostIP is an address as text.
func (s PortSelector) Selects(hostIP string, host, app uint16, protocol string) bool {
	if protocol != s.Protocol || host < s.Host || host-s.Host >= s.Count {
		return false
	}
	if s.App != 0 && app != s.App+(host-s.Host) {
		return false
	}
	a, err := netip.ParseAddr(hostIP)
	return !s.HostIP.IsValid() || err == nil && a == s.HostIP
}

// String returns the selector as ParsePortSelector reads it.
func (s PortSelector) String() string {
	span := func(first uint16) string {
		if s.Count > 1 {
			return fmt.Sprintf("%d-%d", first, int(first)+int(s.Count)-1)
		}
		return strconv.Itoa(int(first))
	}
	text := span(s.Host)
	switch {
	case s.HostIP.Is6():
		text = "[" + s.HostIP.String() + "]:" + text
	case s.HostIP.IsValid():
		text = s.HostIP.String() + ":" + text
	}
	if s.App != 0 {
		text += ":" + span(s.App)
	}
	return text + "/" + s.Protocol
}
