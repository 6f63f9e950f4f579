package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// EgressMode says what kind of policy an Egress is.
type EgressMode string

// The kinds of policies.
const (
	EgressAll      EgressMode = "all"      // everything but the host itself, link-local and cloud metadata addresses
	EgressInternet EgressMode = "internet" // public addresses only
	EgressNone     EgressMode = "none"     // nothing
	EgressList     EgressMode = "list"     // what Rules allow, and nothing else
)

// Egress is what a sandbox may reach outside its network. The zero value says nothing: someone else's holds.
type Egress struct {
	Mode  EgressMode
	Rules []EgressRule // of EgressList, at least one
}

// EgressRule allows one destination. It has either a Name or a Prefix.
type EgressRule struct {
	Protocol   string       // "tcp", "udp" or "icmp" (ping); empty: TCP and UDP
	Name       string       // host name in lower case, without the last dot
	Subdomains bool         // every name below Name at any depth, but not Name itself
	Prefix     netip.Prefix // addresses; a single one has all its bits
	Port       uint16       // 0: every port
}

// maxEgressRules bounds a list, which is gone through for each flow and handed from process to process.
const maxEgressRules = 256

// EgressError says what is wrong with a policy, in one line.
type EgressError struct {
	Text   string // the word or rule as it is written
	Reason string
	Remedy string // what to write instead; may be empty
}

// Error returns the rule and what is wrong with it.
func (e *EgressError) Error() string { return fmt.Sprintf("egress %q: %s", clip(e.Text), e.Reason) }

// Hint is what to write instead, in one line; empty if there is nothing to be said.
func (e *EgressError) Hint() string { return e.Remedy }

// egressForms is what faults remind of.
const egressForms = "rules are api.example.com, *.example.org:443, 192.0.2.1, 10.0.0.0/8:5432, [2001:db8::/32]:443, and those with tcp://, udp:// or icmp:// before them"

// egressChoice is what a policy may be.
const egressChoice = "all, internet or none, nor a list of rules"

func egressWords() []string {
	return []string{string(EgressAll), string(EgressInternet), string(EgressNone)}
}

// ParseEgress reads a policy as --egress takes it: all, internet, none, or rules joined by commas. It is what
// Egress.String writes.
func ParseEgress(s string) (Egress, error) { return ParseEgressList(strings.Split(s, ",")) }

// ParseEgressList reads a policy whose words or rules are given one by one. The error is an *EgressError.
func ParseEgressList(items []string) (Egress, error) {
	if len(items) == 1 {
		switch mode := EgressMode(items[0]); mode {
		case EgressAll, EgressInternet, EgressNone:
			return Egress{Mode: mode}, nil
		}
	}
	if len(items) == 0 {
		return Egress{}, &EgressError{Reason: "the list is empty", Remedy: `write "none" for nothing`}
	}
	e := Egress{Mode: EgressList}
	for _, item := range items {
		r, err := ParseEgressRule(item)
		if err != nil {
			return Egress{}, err
		}
		if !slices.Contains(e.Rules, r) {
			e.Rules = append(e.Rules, r)
		}
	}
	if r := e.Rules[0]; len(e.Rules) == 1 && r.String() == r.Name && !strings.Contains(r.Name, ".") {
		// A list of one bare word is what a slip of the pen makes of the words.
		if near := suggest(r.Name, egressWords()); near != "" {
			return Egress{}, &EgressError{Text: r.Name, Reason: "it is neither " + egressChoice, Remedy: fmt.Sprintf("did you mean %q? A host of this name is tcp://%s", near, r.Name)}
		}
	}
	if len(e.Rules) > maxEgressRules {
		return Egress{}, &EgressError{Text: items[maxEgressRules], Reason: fmt.Sprintf("the list has %d rules: at most %d are allowed", len(e.Rules), maxEgressRules)}
	}
	return e, nil
}

// ParseEgressRule reads one rule: [tcp://|udp://|icmp://]DESTINATION[:PORT], where the destination is a host name, *. and
// a host name for all names below it, an address, or a block of addresses. An IPv6 one stands in brackets if a port
// follows. The error is an *EgressError.
func ParseEgressRule(s string) (EgressRule, error) {
	fail := func(reason, remedy string) (EgressRule, error) {
		return EgressRule{}, &EgressError{Text: s, Reason: reason, Remedy: remedy}
	}
	switch {
	case s == "":
		return fail("a rule is empty", egressForms)
	case hasControl(s):
		return fail(errControl.Error(), "")
	case strings.ContainsAny(s, " ,"):
		return fail("a rule holds no blanks or commas", egressForms)
	case slices.Contains(egressWords(), s):
		return fail("it stands alone, not in a list", "")
	case slices.Contains(egressWords(), strings.ToLower(s)):
		return fail("it is written in lower case", "")
	case s == "*":
		return fail("there is no rule for every name", `write "all" or "internet" in place of the list`)
	}
	var r EgressRule
	rest := s
	if scheme, after, ok := strings.Cut(s, "://"); ok {
		switch scheme {
		case "tcp", "udp", "icmp":
			r.Protocol, rest = scheme, after
		case "http", "https":
			return fail("a rule is about hosts and ports, not addresses of pages", "leave out "+scheme+"://, and what follows the host")
		default:
			return fail(fmt.Sprintf("%q is not tcp, udp or icmp", clip(scheme)), "")
		}
	}
	host, port, err := splitEgress(rest)
	if err != nil {
		return fail(err.Error(), egressForms)
	}
	if port != "" {
		if r.Port, err = egressPort(port); err != nil {
			return fail(err.Error(), "leave the port out for every port")
		}
		if r.Protocol == "icmp" {
			return fail("icmp has no ports", "leave out :"+port)
		}
	}
	if looksNumeric(host) {
		if r.Prefix, err = egressPrefix(host); err != nil {
			return fail(err.Error(), egressForms)
		}
		if reason, remedy := unfitPrefix(r.Prefix); reason != "" {
			return fail(reason, remedy)
		}
		return r, nil
	}
	r.Name, r.Subdomains = strings.CutPrefix(strings.ToLower(host), "*.")
	if reason, remedy := unfitName(r.Name); reason != "" {
		return fail(reason, remedy)
	}
	return r, nil
}

// splitEgress cuts a port off.
func splitEgress(s string) (host, port string, err error) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		host, after, ok := strings.Cut(inner, "]")
		switch {
		case !ok:
			return "", "", errors.New("the address lacks its closing bracket")
		case !strings.Contains(host, ":"):
			return "", "", errors.New("brackets are for IPv6 addresses")
		case after == "":
			return host, "", nil
		}
		port, ok = strings.CutPrefix(after, ":")
		if !ok || port == "" {
			return "", "", errors.New("after the bracket comes a colon and a port, or nothing")
		}
		return host, port, nil
	}
	if strings.Count(s, ":") > 1 { // an IPv6 address
		return s, "", nil
	}
	host, port, found := strings.Cut(s, ":")
	if found && port == "" {
		return "", "", errors.New("the port is missing after the colon")
	}
	return host, port, nil
}

func egressPort(s string) (uint16, error) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, fmt.Errorf("port %q is not a number from 1 to 65535", clip(s))
		}
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q is not a number from 1 to 65535", clip(s))
	}
	return uint16(n), nil
}

// looksNumeric reports whether programs would take a host for an address: a colon or a slash, or a last part that is a
// number. inet_aton(3) reads 127.1 and 0x7f000001 as addresses, so these are no names either.
func looksNumeric(host string) bool {
	if strings.ContainsAny(host, ":/") {
		return true
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	if last == "" {
		return false
	}
	if hex, ok := strings.CutPrefix(strings.ToLower(last), "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(last, "0123456789") == ""
}

// egressPrefix reads an address or a block of them.
func egressPrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("%q is not an IP address", clip(s))
		}
		if a.Zone() != "" {
			return netip.Prefix{}, errors.New("an address has no zone here: the host knows its links")
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a block of addresses", clip(s))
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, errors.New("IPv4 addresses are written as such")
	}
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("%s has bits set beyond its length; the block is %s", p, p.Masked())
	}
	return p, nil
}

// unfitPrefix says why a block cannot be reached whatever a rule says.
func unfitPrefix(p netip.Prefix) (reason, remedy string) {
	a := p.Addr()
	if p.Bits() == 0 {
		return "", "" // every address of the family; the ones below stay out of reach
	}
	switch {
	case a.IsLoopback():
		return "in a sandbox, loopback is the sandbox itself", "host_ports = [PORT], or --host-port PORT, opens a port of the host's"
	case a.IsUnspecified() && p.IsSingleIP():
		return "the unspecified address is nobody's", ""
	case a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "multicast and broadcast do not leave a network", ""
	}
	return "", ""
}

// unfitName says why a name cannot be in a rule.
func unfitName(name string) (reason, remedy string) {
	switch {
	case strings.Contains(name, "*"):
		return "a star stands for whole names, at the beginning only", "write *.example.org"
	case strings.ContainsFunc(name, func(r rune) bool { return r >= 0x80 }):
		return "a name in other letters than ASCII", "write it as the DNS does, xn--…"
	}
	if err := validHost(name, 253); err != nil {
		return err.Error(), ""
	}
	switch {
	case name == "localhost", strings.HasSuffix(name, ".localhost"):
		return "in a sandbox, localhost is the sandbox itself", "host_ports = [PORT], or --host-port PORT, opens a port of the host's"
	case name == "whisk.internal", strings.HasSuffix(name, ".whisk.internal"):
		return "it is a name of whisk's own", "host_ports = [PORT], or --host-port PORT, opens a port of the host's"
	}
	return "", ""
}

// Allows reports whether the rule is for this protocol ("tcp", "udp" or "icmp") and port.
func (r EgressRule) Allows(protocol string, port uint16) bool {
	if r.Protocol == "" && protocol == "icmp" || r.Protocol != "" && r.Protocol != protocol {
		return false
	}
	return r.Port == 0 || r.Port == port
}

// Matches reports whether a name, in lower case and without the last dot, is the rule's or, with Subdomains, below it.
func (r EgressRule) Matches(name string) bool {
	if r.Name == "" {
		return false
	}
	if !r.Subdomains {
		return name == r.Name
	}
	above, ok := strings.CutSuffix(name, "."+r.Name)
	return ok && above != ""
}

// String returns the rule as ParseEgressRule reads it.
func (r EgressRule) String() string {
	var b strings.Builder
	if r.Protocol != "" {
		b.WriteString(r.Protocol + "://")
	}
	switch {
	case r.Name != "":
		if r.Subdomains {
			b.WriteString("*.")
		}
		b.WriteString(r.Name)
	default:
		dst := r.Prefix.String()
		if r.Prefix.IsSingleIP() {
			dst = r.Prefix.Addr().String()
		}
		if r.Port != 0 && r.Prefix.Addr().Is6() {
			dst = "[" + dst + "]"
		}
		b.WriteString(dst)
	}
	if r.Port != 0 {
		b.WriteString(":" + strconv.Itoa(int(r.Port)))
	}
	return b.String()
}

// String returns the policy as ParseEgress reads it; empty for the zero value.
func (e Egress) String() string {
	if e.Mode != EgressList {
		return string(e.Mode)
	}
	rules := make([]string, len(e.Rules))
	for i, r := range e.Rules {
		rules[i] = r.String()
	}
	return strings.Join(rules, ",")
}

// ParseHostPort reads a port of the host's loopback that a sandbox may reach.
func ParseHostPort(s string) (uint16, error) {
	p, err := egressPort(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf("host %w", err)
	case p == 53:
		return 0, errors.New("host port 53 is taken: there the network's own name server answers")
	}
	return p, nil
}
