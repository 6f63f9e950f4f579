package launcher

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/whisk-sandbox/whisk/slirp"
)

// Learned is what would have allowed the flows of a log.
type Learned struct {
	Network []EgressNeed            // of all apps together
	Apps    map[string][]EgressNeed // by app
	Flows   int                     // that were learned from
	Denied  int                     // that were left out because the policy refused them
	Lost    int                     // that nobody knows of, because they came too fast to be written down
	Summed  int                     // that were only counted, without their destinations
}

// EgressNeed is one rule of an egress list, without which a flow would not have been allowed.
type EgressNeed struct {
	Protocol string // "tcp", "udp" or "icmp"
	Name     string // in lower case; empty: Addr counts
	Addr     netip.Addr
	Port     uint16 // of TCP and UDP
}

// LearnEgress works out the shortest lists of exact rules that would have allowed the flows of a log: the name where an
// app went by one (each that it had asked for, where they share the address), else the address; both, where that is not a public one. apps are those that are asked about, also where they had no flow; with none it is
// all that occur. What was denied is not learned: a list is not made longer by who tries.
func LearnEgress(lines []FlowLine, apps []string) Learned {
	l := Learned{Apps: map[string][]EgressNeed{}}
	for _, app := range apps {
		l.Apps[app] = nil
	}
	for i := range lines {
		line := &lines[i]
		if line.Verdict == FlowLost {
			l.Lost += line.Count
			continue
		}
		if len(apps) > 0 && !slices.Contains(apps, line.App) {
			continue
		}
		if line.Verdict == FlowDenied {
			l.Denied += line.Count
			continue
		}
		if line.Name == slirp.HostName {
			continue // host_ports allows it, and no rule can
		}
		needs := needsOf(line)
		if needs == nil {
			l.Summed += line.Count
			continue
		}
		l.Flows += line.Count
		l.Apps[line.App] = append(l.Apps[line.App], needs...)
		l.Network = append(l.Network, needs...)
	}
	l.Network = minimal(l.Network)
	for app, needs := range l.Apps {
		l.Apps[app] = minimal(needs)
	}
	return l
}

// needsOf are the rules for one flow; none for a sum of several. A flow has more than one where names share an address:
// the app may have meant any of those that it asked for.
func needsOf(line *FlowLine) []EgressNeed {
	addr, err := netip.ParseAddr(line.Address)
	if err != nil {
		return nil
	}
	addr = addr.Unmap().WithZone("")
	var needs []EgressNeed
	for _, name := range append([]string{line.Name}, line.Also...) {
		if hostName(name) { // not all that DNS carries is one
			needs = append(needs, EgressNeed{Protocol: line.Protocol, Name: strings.ToLower(name), Port: line.Port})
		}
	}
	// A name opens public addresses only (whoever answers for it could point it anywhere); without the name, though, the
	// app would not be told the address.
	if needs == nil || !slirp.Public(addr) {
		needs = append(needs, EgressNeed{Protocol: line.Protocol, Addr: addr, Port: line.Port})
	}
	return needs
}

// hostName says whether a name can stand in a rule.
func hostName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return false
			}
		}
	}
	return true
}

// minimal sorts rules and leaves each once: names before addresses, TCP before UDP before pings.
func minimal(needs []EgressNeed) []EgressNeed {
	slices.SortFunc(needs, func(a, b EgressNeed) int {
		return cmp.Or(
			cmp.Compare(protocolOrder(a.Protocol), protocolOrder(b.Protocol)),
			cmp.Compare(nameOrder(a.Name), nameOrder(b.Name)),
			slices.Compare(zoneFirst(a.Name), zoneFirst(b.Name)),
			a.Addr.Compare(b.Addr),
			cmp.Compare(a.Port, b.Port),
		)
	})
	return slices.Compact(needs)
}

func protocolOrder(p string) int { return slices.Index([]string{"tcp", "udp", "icmp"}, p) }

func nameOrder(name string) int {
	if name == "" {
		return 1
	}
	return 0
}

// zoneFirst is a name from its end, so that the names of a domain stand together.
func zoneFirst(name string) []string {
	labels := strings.Split(name, ".")
	slices.Reverse(labels)
	return labels
}

// String writes the rule as whisk.toml and --egress have it.
func (n EgressNeed) String() string {
	host := n.Name
	if host == "" {
		host = n.Addr.String()
	}
	if n.Protocol == "icmp" {
		return "icmp://" + host
	}
	if n.Name == "" && n.Addr.Is6() {
		host = "[" + host + "]"
	}
	if n.Protocol == "udp" {
		host = "udp://" + host
	}
	return fmt.Sprintf("%s:%d", host, n.Port)
}

// handful is how many names of one domain are listed without a word about the wildcard that would stand for them.
const handful = 5

// Wildcards are the rules that would stand for more than a handful of a list's, by what they stand for. Nobody widens a
// list but its owner; the domain of a wildcard has two labels at least.
func Wildcards(needs []EgressNeed) map[string][]EgressNeed {
	out := map[string][]EgressNeed{}
	for _, n := range needs {
		_, domain, ok := strings.Cut(n.Name, ".")
		if !ok || !strings.Contains(domain, ".") {
			continue
		}
		rule := EgressNeed{Protocol: n.Protocol, Name: "*." + domain, Port: n.Port}.String()
		out[rule] = append(out[rule], n)
	}
	for rule, n := range out {
		if len(n) <= handful {
			delete(out, rule)
		}
	}
	return out
}
