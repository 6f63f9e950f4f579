package slirp

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
)

// hostName is what a sandbox calls the machine it runs on.
const hostName = "host.whisk.internal"

// HostName is the name of a Flow to a port of the host's that AttachOptions.HostPorts has opened.
const HostName = hostName

// ErrNameTaken says that another sandbox has the name in this network.
var ErrNameTaken = errors.New("is taken")

// names are the addresses that the network's own names stand for. Names are kept in lower case, without the last dot.
type names struct {
	network string // zone of the full names: app.network

	mu     sync.RWMutex
	byName map[string][]*Endpoint // an alias may stand for several
	byAddr map[netip.Addr]*Endpoint
}

func newNames(network string) *names {
	return &names{network: canonical(network), byName: make(map[string][]*Endpoint), byAddr: make(map[netip.Addr]*Endpoint)}
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// of lists what an endpoint is called, its own name first.
func (e *Endpoint) names() []string {
	var out []string
	for _, n := range append([]string{e.name}, e.aliases...) {
		if n = canonical(n); n != "" {
			out = append(out, n)
		}
	}
	return out
}

func (n *names) add(e *Endpoint) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	own := canonical(e.name)
	for _, other := range n.byName[own] {
		if own != "" && canonical(other.name) == own {
			return fmt.Errorf("name %q %w in network %q", e.name, ErrNameTaken, n.network)
		}
	}
	for _, name := range e.names() {
		n.byName[name] = append(n.byName[name], e)
	}
	n.byAddr[e.v4], n.byAddr[e.v6] = e, e
	return nil
}

func (n *names) remove(e *Endpoint) {
	n.free(e)
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.byAddr, e.v4)
	delete(n.byAddr, e.v6)
}

// free takes the names of e away, and leaves its addresses.
func (n *names) free(e *Endpoint) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range e.names() {
		var rest []*Endpoint
		for _, other := range n.byName[name] {
			if other != e {
				rest = append(rest, other)
			}
		}
		if n.byName[name] = rest; len(rest) == 0 {
			delete(n.byName, name)
		}
	}
}

// lookup finds the addresses of a canonical name that a sandbox may reach; nil stands for the host, which reaches all.
// ok is false if the network has no such name.
func (n *names) lookup(name string, asker *Endpoint) (v4, v6 []netip.Addr, ok bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	found := n.byName[name]
	if len(found) == 0 {
		if short, inZone := strings.CutSuffix(name, "."+n.network); inZone && n.network != "" {
			found = n.byName[short]
		}
	}
	for _, e := range found {
		if asker == nil || mayReach(asker, e) {
			v4, v6 = append(v4, e.v4), append(v6, e.v6)
		}
	}
	return v4, v6, len(found) > 0
}

// has reports whether a sandbox has an address.
func (n *names) has(a netip.Addr) bool { return n.endpoint(a) != nil }

// endpoint finds the sandbox that has an address; nil if none has.
func (n *names) endpoint(a netip.Addr) *Endpoint {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.byAddr[a]
}

// reverse finds the name of an address that a sandbox may reach: app.network, which says more than app in a log.
func (n *names) reverse(a netip.Addr, asker *Endpoint) (string, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	e := n.byAddr[a]
	if e == nil || canonical(e.name) == "" || !mayReach(asker, e) {
		return "", false
	}
	if n.network == "" {
		return canonical(e.name), true
	}
	return canonical(e.name) + "." + n.network, true
}
