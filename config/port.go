package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// portForm is what every error about a port reminds of.
const portForm = "[ip:]host:app[/tcp|udp]"

// ParsePort reads a published port as docker's and podman's -p do: [ip:]host:app[/tcp|udp], where host and app may be
// ranges of equal length (8000-8009:80-89), an empty or zero host is a free port that the kernel picks, "80" alone is
// that too, and an IPv6 address stands in brackets. Without an address it is 127.0.0.1, unlike docker's 0.0.0.0: a
// laptop's apps are nobody else's business until asked.
func ParsePort(s string) (Port, error) {
	p := Port{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Protocol: "tcp"}
	fail := func(format string, args ...any) (Port, error) {
		return Port{}, fmt.Errorf("port %q: %s", clip(s), fmt.Sprintf(format, args...))
	}
	if hasControl(s) {
		return fail("%v", errControl)
	}
	rest, protocol, given := strings.Cut(s, "/")
	if given {
		p.Protocol = strings.ToLower(protocol)
		if p.Protocol != "tcp" && p.Protocol != "udp" {
			return fail("protocol %q is not tcp or udp", protocol)
		}
	}
	ip, host, app, err := splitPort(rest)
	if err != nil {
		return fail("%v", err)
	}
	if ip != "" {
		addr, err := netip.ParseAddr(ip)
		if err != nil || addr.Zone() != "" {
			return fail("%q is not an IP address; want %s", ip, portForm)
		}
		p.HostIP = addr.Unmap()
	}
	first, last, err := portRange(app)
	if err != nil {
		return fail("app port %v", err)
	}
	if first == 0 {
		return fail("the app's port must be 1 to 65535; only the host's may be 0")
	}
	p.App, p.Count = first, last-first+1
	if host == "" || host == "0" {
		return p, nil
	}
	hostFirst, hostLast, err := portRange(host)
	switch {
	case err != nil:
		return fail("host port %v", err)
	case hostFirst == 0 && hostLast != 0:
		return fail("a range of host ports cannot begin with 0")
	case hostFirst == 0:
		return p, nil
	case hostLast-hostFirst != last-first:
		return fail("host ports %s are %d, app ports %s are %d: the ranges must be equally long", host, int(hostLast-hostFirst)+1, app, p.Count)
	}
	p.Host = hostFirst
	return p, nil
}

// splitPort cuts [ip:]host:app at its colons.
func splitPort(s string) (ip, host, app string, err error) {
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", "", "", errors.New("the address lacks its closing bracket")
		}
		ip, s = s[1:end], s[end+1:]
		if ip == "" || !strings.HasPrefix(s, ":") {
			return "", "", "", errors.New("want [ip]:host:app")
		}
		var ok bool
		if host, app, ok = strings.Cut(s[1:], ":"); !ok {
			return "", "", "", fmt.Errorf("the app's port is missing; want [%s]:host:app, or [%s]::app for a free host port", ip, ip)
		}
		return ip, host, app, nil
	}
	switch parts := strings.Split(s, ":"); len(parts) {
	case 1:
		return "", "", s, nil
	case 2:
		if _, err := netip.ParseAddr(parts[0]); err == nil {
			return "", "", "", fmt.Errorf("the app's port is missing; want %s:host:app, or %s::%s for a free host port", parts[0], parts[0], parts[1])
		}
		return "", parts[0], parts[1], nil
	case 3:
		if parts[0] == "" {
			return "", "", "", fmt.Errorf("the address is empty; want %s", portForm)
		}
		return parts[0], parts[1], parts[2], nil
	}
	if _, err := netip.ParseAddr(s); err == nil || strings.Contains(s, "::") {
		return "", "", "", errors.New("an IPv6 address needs brackets: [::1]:8080:80")
	}
	return "", "", "", fmt.Errorf("too many colons; want %s", portForm)
}

// portRange reads "80" or "80-89".
func portRange(s string) (first, last uint16, err error) {
	from, to, isRange := strings.Cut(s, "-")
	if first, err = portNumber(from); err != nil {
		return 0, 0, err
	}
	if !isRange {
		return first, first, nil
	}
	if last, err = portNumber(to); err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, fmt.Errorf("range %s runs backwards", s)
	}
	return first, last, nil
}

// portNumber reads digits only, so that "+80" and "8_0" are faults; the shells' fingers know no others.
func portNumber(s string) (uint16, error) {
	if s == "" {
		return 0, fmt.Errorf("is missing; want %s", portForm)
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, fmt.Errorf("%q is not a number; want %s", clip(s), portForm)
		}
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%s is above 65535", clip(s))
	}
	return uint16(n), nil
}

// String returns the port as ParsePort reads it, with every part written out.
func (p Port) String() string {
	ip := p.HostIP.String()
	if p.HostIP.Is6() {
		ip = "[" + ip + "]"
	}
	span := func(first uint16) string {
		if p.Count > 1 {
			return fmt.Sprintf("%d-%d", first, int(first)+int(p.Count)-1)
		}
		return strconv.Itoa(int(first))
	}
	host := ""
	if p.Host != 0 {
		host = span(p.Host)
	}
	return fmt.Sprintf("%s:%s:%s/%s", ip, host, span(p.App), p.Protocol)
}

// Overlaps reports whether p and q ask for a common host port: the same protocol, ranges that meet, and addresses of
// which one is the other or all of them. :: stands for IPv4 too, as Linux's dual-stack sockets do. Free ports never overlap.
func (p Port) Overlaps(q Port) bool {
	if p.Host == 0 || q.Host == 0 || p.Protocol != q.Protocol {
		return false
	}
	if int(p.Host)+int(p.Count) <= int(q.Host) || int(q.Host)+int(q.Count) <= int(p.Host) {
		return false
	}
	covers := func(a, b netip.Addr) bool {
		return a == b || a.IsUnspecified() && (a.Is6() || b.Is4())
	}
	return covers(p.HostIP, q.HostIP) || covers(q.HostIP, p.HostIP)
}
