package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// HostGateway is the address that stands for the host itself in Host.Addr, as in docker's --add-host.
const HostGateway = "host-gateway"

// ParseHost reads a line for /etc/hosts as docker's --add-host does: name:address or name=address. The address is an
// IPv4 or IPv6 one, the latter with or without brackets, or host-gateway.
func ParseHost(s string) (Host, error) {
	at := strings.IndexAny(s, ":=")
	if at < 0 {
		return Host{}, fmt.Errorf("extra host %q: want name:address, such as api.test:192.0.2.7", clip(s))
	}
	return parseHost(s[:at], s[at+1:])
}

func parseHost(name, addr string) (Host, error) {
	if err := validHost(name, 253); err != nil {
		return Host{}, fmt.Errorf("extra host: %w", err)
	}
	if addr == HostGateway {
		return Host{Name: name, Addr: addr}, nil
	}
	bare := addr
	if strings.HasPrefix(addr, "[") && strings.HasSuffix(addr, "]") {
		bare = addr[1 : len(addr)-1]
	}
	ip, err := netip.ParseAddr(bare)
	if err != nil || ip.Zone() != "" {
		return Host{}, fmt.Errorf("extra host %q: %q is neither an IP address nor host-gateway", name, clip(addr))
	}
	return Host{Name: name, Addr: ip.Unmap().String()}, nil
}

// String returns the host as ParseHost reads it.
func (h Host) String() string { return h.Name + "=" + h.Addr }
