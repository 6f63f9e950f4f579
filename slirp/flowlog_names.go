package slirp

import (
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/miekg/dns"
)

const (
	// maxHeard bounds the addresses that are remembered for one sandbox: an app can ask for as many names as it likes.
	maxHeard = 2048

	// maxNames bounds the names of one address. Large sites share theirs.
	maxNames = 16
)

// namesOf is what the sandbox with address src calls dst: the names that its own DNS answered with that address, the
// last one first.
func (n *Network) namesOf(src, dst netip.Addr) []string {
	if n.flowlog == nil {
		return nil
	}
	return n.flowlog.heard.find(n.names.endpoint(src), dst)
}

// heardNames are the names that the answers of the name server gave addresses, for each sandbox.
type heardNames struct {
	mu sync.Mutex
	of map[*Endpoint]*heard
}

// heard is one sandbox's. When it is full, what was heard first is forgotten.
type heard struct {
	names map[netip.Addr][]string // the last one first
	order []netip.Addr            // a ring
	next  int
}

// hear notes the addresses of an answer.
func (l *flowLog) hear(from net.Addr, q, m *dns.Msg) {
	if l == nil || len(q.Question) != 1 || len(m.Answer) == 0 {
		return
	}
	at, err := netip.ParseAddrPort(from.String())
	if err != nil {
		return
	}
	e := l.net.names.endpoint(at.Addr().Unmap())
	if e == nil {
		return
	}
	for _, rr := range m.Answer {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			l.heard.note(e, a.Unmap(), canonical(q.Question[0].Name))
		}
	}
}

func (h *heardNames) note(e *Endpoint, a netip.Addr, name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of == nil {
		h.of = make(map[*Endpoint]*heard)
	}
	own := h.of[e]
	if own == nil {
		own = &heard{names: make(map[netip.Addr][]string)}
		h.of[e] = own
	}
	if _, known := own.names[a]; !known {
		if len(own.order) < maxHeard {
			own.order = append(own.order, a)
		} else {
			delete(own.names, own.order[own.next])
			own.order[own.next] = a
			own.next = (own.next + 1) % maxHeard
		}
	}
	// A new slice: who has found the old one keeps it.
	all := append([]string{name}, slices.DeleteFunc(slices.Clone(own.names[a]), func(s string) bool { return s == name })...)
	own.names[a] = all[:min(len(all), maxNames)]
}

func (h *heardNames) find(e *Endpoint, a netip.Addr) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if own := h.of[e]; own != nil {
		return own.names[a.Unmap()]
	}
	return nil
}

// forget drops what a sandbox has heard that leaves.
func (l *flowLog) forget(e *Endpoint) {
	if l == nil {
		return
	}
	l.heard.mu.Lock()
	defer l.heard.mu.Unlock()
	delete(l.heard.of, e)
}
