package slirp

import (
	"net/netip"
	"time"
)

// Flow is what became of one flow that left the network or tried to: a TCP connection, the datagrams between two
// addresses, or the echo requests of one ping.
type Flow struct {
	Began    time.Time
	Ended    time.Time
	App      string         // the sandbox's name on this network
	Protocol string         // "tcp", "udp" or "icmp"
	Source   netip.AddrPort // the sandbox's address
	To       netip.AddrPort
	Name     string // what the sandbox knows To as, from its own DNS; empty: it used the address
	Sent     int64  // bytes of payload from the sandbox
	Received int64  // bytes of payload to the sandbox
	Denied   bool
	Why      string // why it was denied, or could not be made; empty otherwise
}
