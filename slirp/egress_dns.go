package slirp

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/whisk-sandbox/whisk/config"
)

// What follows keeps a list's DNS from being a way out of its own. Names carry data to whoever answers for them, so only
// names that a rule allows are forwarded, in a form of ours (plainQuestion). Below a wildcard the app still picks the
// words: there it gets one label's worth of bytes and a measured number of names.
const (
	// maxBelow is how long the part of a name may be that stands for a wildcard's star, in bytes: a whole label (RFC 1035
	// §2.3.4), which names of stored files and previews use up, and not four of them.
	maxBelow = 63

	// nameBurst and nameRefill bound the names that were not asked before below wildcards: a page asks for dozens at once,
	// and an app that goes on asking gets one a second. That leaves a tunnel 63 bytes a second.
	nameBurst  = 100
	nameRefill = time.Second

	// maxChain is longer than resolvers follow aliases.
	maxChain = 16
)

// forbid answers a question that the sandbox's policy does not let out; nil if it may be forwarded.
func (s *nameServer) forbid(q *dns.Msg, e *Endpoint) *dns.Msg {
	question := q.Question[0]
	name := canonical(question.Name)
	switch e.egress.Mode {
	case config.EgressAll:
		return nil
	case config.EgressInternet:
		if a, ok := reverseName(name); ok && !public(a) {
			s.flowlog.deniedName(e, name, "egress is internet")
			return prohibitedName(q, "egress is internet")
		}
		return nil
	case config.EgressList:
	default:
		s.flowlog.deniedName(e, name, "egress is none")
		return prohibitedName(q, "egress is none")
	}
	wildcard, why := nameRule(e.egress.Rules, name)
	if why != "" {
		s.log.Debug("name denied", "app", e.name, "name", name, "why", why)
		s.flowlog.deniedName(e, name, why)
		return prohibitedName(q, why)
	}
	if !forwardedType(question.Qtype) {
		return reply(q) // NODATA: the name exists
	}
	if wildcard && !e.budget.spend(time.Now(), name) {
		s.log.Debug("name denied", "app", e.name, "name", name, "why", "too many names below wildcards")
		s.flowlog.deniedName(e, name, "too many names below wildcards in a short time")
		m := failure(q, dns.RcodeServerFailure) // it may be asked again later
		return explain(m, "too many names below wildcards in a short time")
	}
	return nil
}

// nameRule says why no rule of a list allows a name to be asked for, or whether only wildcards do.
func nameRule(rules []config.EgressRule, name string) (wildcard bool, why string) {
	why = "no rule allows this name"
	for _, r := range rules {
		switch {
		case !r.Matches(name):
		case !r.Subdomains:
			return false, ""
		case len(name)-len(r.Name)-1 > maxBelow:
			if !wildcard {
				why = fmt.Sprintf("more than %d bytes before .%s", maxBelow, r.Name)
			}
		default:
			wildcard, why = true, ""
		}
	}
	return wildcard, why
}

// forwardedType reports whether a list lets questions of this type out: addresses, and what says where else a service is
// (which is asked for in turn). HTTPS and SVCB records (RFC 9460) are held back, since they make a program do what a list
// cannot check: they offer keys that hide the name of the server, QUIC, and addresses of their own. Programs then go by
// A and AAAA. NULL and the like carry data for tunnels and nothing that an app needs.
func forwardedType(t uint16) bool {
	switch t {
	case dns.TypeA, dns.TypeAAAA, dns.TypeCNAME, dns.TypeSRV, dns.TypeMX, dns.TypeTXT:
		return true
	}
	return false
}

// prohibitedName answers that there is no such name, which ends a resolver's search at once; REFUSED makes it try again and
// report a temporary failure.
func prohibitedName(q *dns.Msg, why string) *dns.Msg {
	return explain(failure(q, dns.RcodeNameError), why)
}

// explain says in the answer that it is a policy's (RFC 8914 §4.19), if the asker understands that.
func explain(m *dns.Msg, why string) *dns.Msg {
	if opt := m.IsEdns0(); opt != nil {
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeProhibited, ExtraText: why})
	}
	return m
}

// plainQuestion asks the same without what an app could hide in a question: the case of letters, options, further records.
func plainQuestion(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(canonical(q.Question[0].Name)), q.Question[0].Qtype)
	m.Id = q.Id
	m.SetEdns0(dns.DefaultMsgSize, false)
	return m
}

// chain returns the names that an answer says its question's name is an alias of, and that name itself.
func chain(name string, answer []dns.RR) map[string]bool {
	target := make(map[string]string)
	for _, rr := range answer {
		if c, ok := rr.(*dns.CNAME); ok && c.Hdr.Class == dns.ClassINET && target[canonical(c.Hdr.Name)] == "" {
			target[canonical(c.Hdr.Name)] = canonical(c.Target)
		}
	}
	owners := map[string]bool{name: true}
	for range maxChain {
		next, ok := target[name]
		if !ok || owners[next] {
			break
		}
		owners[next], name = true, next
	}
	return owners
}

// addressesOf lists the addresses of an answer that belong to the name asked for, through aliases, and how long for.
func addressesOf(q, m *dns.Msg) (addrs []netip.Addr, ttl time.Duration) {
	owners := chain(canonical(q.Question[0].Name), m.Answer)
	least := ^uint32(0)
	for _, rr := range m.Answer {
		if !owners[canonical(rr.Header().Name)] || rr.Header().Class != dns.ClassINET {
			continue
		}
		a, ok := addressOf(rr)
		if ok {
			addrs = append(addrs, a)
		}
		if ok || rr.Header().Rrtype == dns.TypeCNAME {
			least = min(least, rr.Header().Ttl)
		}
	}
	return addrs, time.Duration(least) * time.Second
}

func addressOf(rr dns.RR) (netip.Addr, bool) {
	var a netip.Addr
	var ok bool
	switch rr := rr.(type) {
	case *dns.A:
		a, ok = netip.AddrFromSlice(rr.A)
	case *dns.AAAA:
		a, ok = netip.AddrFromSlice(rr.AAAA)
	}
	return a.Unmap(), ok
}

// answerable reports whether a name may stand for an address under a list: a public one, or one that a rule of its own is
// about. Otherwise whoever answers for a name that is allowed could point it at the host or its LAN (DNS rebinding).
func answerable(rules []config.EgressRule, a netip.Addr, isHost func(netip.Addr) bool) bool {
	own := isHost(a)
	if public(a) && !own && !isMetadata(embedded(a)) {
		return true
	}
	for _, r := range rules {
		if coversAddr(r, a) && (!own || r.Prefix.IsSingleIP()) {
			return true
		}
	}
	return false
}

// filterAnswer is the answer m as far as it answers q: the records of the name, of its aliases and of the type asked for,
// without addresses that it may not stand for. The name is spelled as in q.
func filterAnswer(q, m *dns.Msg, may func(netip.Addr) bool) *dns.Msg {
	question := q.Question[0]
	out := reply(q)
	out.Rcode = m.Rcode
	out.Truncated = m.Truncated
	asked := canonical(question.Name)
	owners := chain(asked, m.Answer)
	withheld := ""
	for _, rr := range m.Answer {
		h := rr.Header()
		if h.Class != dns.ClassINET || !owners[canonical(h.Name)] || h.Rrtype != question.Qtype && h.Rrtype != dns.TypeCNAME {
			continue
		}
		if c, ok := rr.(*dns.CNAME); ok && !owners[canonical(c.Target)] {
			continue // a second alias of one name
		}
		if a, ok := addressOf(rr); ok && !may(a) {
			withheld = fmt.Sprintf("%s is not a public address: that needs a rule of its own", a)
			continue
		}
		rr = dns.Copy(rr)
		if canonical(h.Name) == asked {
			rr.Header().Name = question.Name // programs that vary the case of letters look whether it comes back
		}
		out.Answer = append(out.Answer, rr)
	}
	for _, rr := range m.Ns {
		if rr.Header().Rrtype == dns.TypeSOA && len(out.Answer) == 0 {
			out.Ns = append(out.Ns, dns.Copy(rr)) // how long the name may be taken for missing
		}
	}
	if withheld != "" {
		explain(out, withheld)
	}
	return out
}

// nameBudget measures a sandbox's questions for new names below wildcards. The zero value is full.
type nameBudget struct {
	mu    sync.Mutex
	spent time.Duration // of nameBurst × nameRefill, at last
	last  time.Time
	asked map[string]bool // names that are paid for
}

// spend takes a name out of the budget, and reports whether there was one left.
func (b *nameBudget) spend(now time.Time, name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asked[name] {
		return true
	}
	b.spent = max(b.spent-now.Sub(b.last), 0)
	b.last = now
	if b.spent+nameRefill > nameBurst*nameRefill {
		return false
	}
	b.spent += nameRefill
	if b.asked == nil || len(b.asked) >= maxKnown {
		b.asked = make(map[string]bool)
	}
	b.asked[strings.Clone(name)] = true
	return true
}
