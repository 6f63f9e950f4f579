package config

import (
	"errors"
	"slices"

	"github.com/pelletier/go-toml/v2/unstable"
)

// egress reads a policy, a word or a list of rules, into its text. A fault stands where its rule does.
func (d *decoder) egress(n *node, into *string) {
	var items []*node
	switch n.kind {
	case unstable.String:
		s, ok := d.expand(n)
		if !ok {
			return
		}
		if !slices.Contains(egressWords(), s) {
			d.fail(n.offset, didYouMean(s, egressWords()), `egress %q: want "all", "internet", "none" or a list of rules`, clip(s))
			return
		}
		*into = s
		return
	case unstable.Array:
		items = n.items
	default:
		d.wrongType(n, "egress", `"all", "internet", "none" or a list of rules`)
		return
	}
	rules, sound := make([]string, 0, len(items)), true
	for _, item := range items {
		s, ok := d.str(item, "a rule of egress")
		if _, err := ParseEgressRule(s); ok && err != nil {
			d.egressFault(item, err)
			ok = false
		}
		rules, sound = append(rules, s), sound && ok
	}
	if !sound {
		return
	}
	e, err := ParseEgressList(rules)
	if err != nil {
		d.egressFault(n, err)
		return
	}
	*into = e.String()
}

func (d *decoder) egressFault(n *node, err error) {
	hint := ""
	if fault, ok := errors.AsType[*EgressError](err); ok {
		hint = fault.Remedy
	}
	d.fail(n.offset, hint, "%v", err)
}

// hostPorts reads the list of ports of the host's.
func (d *decoder) hostPorts(n *node, into *[]uint16) {
	d.list(n, "host_ports", "ports, such as 5432", func(item *node) {
		var p uint16
		if parsed(d, item, "a port of host_ports", "a string or an integer", ParseHostPort, &p, unstable.String, unstable.Integer); p != 0 && !slices.Contains(*into, p) {
			*into = append(*into, p)
		}
	})
}
