package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/slirp"
)

type networkCmd struct {
	Create  networkCreateCmd  `cmd:"" help:"Describe a network for sandboxes to join."`
	Ls      networkLsCmd      `cmd:"" help:"List networks."`
	Inspect networkInspectCmd `cmd:"" help:"Show all that whisk knows of networks, as JSON."`
	Rm      networkRmCmd      `cmd:"" help:"Remove networks that were created."`
}

// Help is what kong shows below the flags.
func (*networkCmd) Help() string {
	return `A network comes into being with its first sandbox and goes with its last. Only one
that is to be special needs to be created; run --network joins any, also that of
a project, by the project's name.

Example:
  whisk run -d --name db --network lan postgres`
}

type networkCreateCmd struct {
	Egress  []string `sep:"none" placeholder:"POLICY" help:"What its sandboxes may reach beyond it, as with run --egress; without it all."`
	Isolate bool     `help:"Keep its sandboxes from each other, but for what run --link says."`
	Subnet  []string `sep:"none" placeholder:"PREFIX" help:"Addresses of its sandboxes, one block of IPv4, of IPv6 or of each; without it whisk chooses."`
	Name    string   `arg:"" placeholder:"NAME" help:"Name of the network."`
}

// Help is what kong shows below the flags.
func (*networkCreateCmd) Help() string {
	return `Examples:
  whisk network create --egress none closed
  whisk network create --isolate --subnet 10.9.0.0/24 lan`
}

func (n *networkCreateCmd) run(_ context.Context, c *call) error {
	if err := c.dirs.Make(); err != nil {
		return err
	}
	host, err := slirp.HostPrefixes()
	if err != nil {
		return err
	}
	network, err := n.network(host)
	if err != nil {
		return err
	}
	if err := launcher.CreateNetwork(c.dirs, network); err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.out, network.Name)
	return err
}

// network is what the flags describe. host is what the host has addresses in or routes to.
func (n *networkCreateCmd) network(host []netip.Prefix) (launcher.Network, error) {
	network := launcher.Network{Name: n.Name, Isolate: n.Isolate, Egress: string(config.EgressAll)}
	if len(n.Egress) > 0 {
		e, err := config.ParseEgress(strings.Join(n.Egress, ","))
		if err != nil {
			return network, flagFault("--egress", err)
		}
		network.Egress = e.String()
	}
	for _, s := range n.Subnet {
		p, err := parseSubnet(s, host)
		if err != nil {
			return network, flagFault("--subnet", err)
		}
		into := &network.IPv4
		if p.Addr().Is6() {
			into = &network.IPv6
		}
		if into.IsValid() {
			return network, usage("give one of IPv4 and one of IPv6 at most", "--subnet: %s is the second of its kind", p)
		}
		*into = p
	}
	return network, nil
}

// parseSubnet reads a subnet that does not get in the way of what the host has.
func parseSubnet(s string, host []netip.Prefix) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, &launcher.Error{Message: fmt.Sprintf("%q is not a block of addresses", s), Hint: "write it as 10.9.0.0/24 or fd00:9::/64", Exit: launcher.ExitWhisk}
	}
	if p.Masked() != p {
		return p, &launcher.Error{Message: fmt.Sprintf("%s has bits set beyond its length", p), Hint: "the block is " + p.Masked().String(), Exit: launcher.ExitWhisk}
	}
	if err := slirp.CheckSubnet(p); err != nil {
		return p, err
	}
	a := p.Addr()
	if a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsUnspecified() {
		return p, fmt.Errorf("%s has a meaning of its own", p)
	}
	for _, h := range host {
		if h.Overlaps(p) && h.Bits() >= 4 { // shorter ones are default routes in parts, as VPNs write them
			return p, &launcher.Error{Message: fmt.Sprintf("%s overlaps %s, which this machine uses", p, h), Hint: "choose another, or leave --subnet out", Exit: launcher.ExitWhisk}
		}
	}
	return p, nil
}

type networkLsCmd struct {
	Quiet bool `short:"q" help:"Print names only."`
	listFlags
}

// Help is what kong shows below the flags.
func (*networkLsCmd) Help() string {
	return `Shown are the networks that were created, and those that sandboxes share.

Example:
  whisk network ls`
}

func (n *networkLsCmd) run(ctx context.Context, c *call) error {
	rows, err := c.networks(ctx)
	if err != nil {
		return err
	}
	switch {
	case n.json():
		return writeJSON(c.out, rows)
	case n.Quiet:
		for _, r := range rows {
			if _, err := fmt.Fprintln(c.out, r.Name); err != nil {
				return err
			}
		}
		return nil
	}
	return networkTable(rows).write(c.out)
}

func networkTable(rows []networkRow) *table {
	t := &table{head: []string{"NAME", "KIND", "SUBNET", "EGRESS", "ISOLATED", "SANDBOXES"}}
	for _, r := range rows {
		isolated := "no"
		if r.Isolate {
			isolated = "yes"
		}
		running := 0
		for _, s := range r.Sandboxes {
			if s.State == launcher.Running {
				running++
			}
		}
		count := fmt.Sprint(running)
		if ended := len(r.Sandboxes) - running; ended > 0 {
			count += fmt.Sprintf(" (%d ended)", ended)
		}
		t.add(r.Name, r.Kind, r.IPv4, egressText(r.Egress), isolated, count)
	}
	return t
}

// egressText shows a policy in a table: a list by its length.
func egressText(policy string) string {
	if e, err := config.ParseEgress(policy); err == nil && e.Mode == config.EgressList {
		if len(e.Rules) == 1 {
			return "1 rule"
		}
		return fmt.Sprintf("%d rules", len(e.Rules))
	}
	return policy
}

type networkInspectCmd struct {
	listFlags
	Networks []string `arg:"" name:"network" placeholder:"NETWORK…" help:"Names of networks."`
}

// Help is what kong shows below the flags.
func (*networkInspectCmd) Help() string {
	return `Example:
  whisk network inspect lan | jq -r '.[0].sandboxes[].name'`
}

func (n *networkInspectCmd) run(ctx context.Context, c *call) error {
	all, err := c.networks(ctx)
	if err != nil {
		return err
	}
	found := make([]networkRow, 0, len(n.Networks))
	for _, name := range n.Networks {
		r := findNetwork(all, name)
		if r == nil {
			return &launcher.Error{Message: fmt.Sprintf("no network %q", name), Hint: "whisk network ls", Kind: launcher.KindNotFound, Exit: launcher.ExitWhisk}
		}
		found = append(found, *r)
	}
	return writeJSON(c.out, found)
}

type networkRmCmd struct {
	Force    bool     `short:"f" help:"A network that is not there is no error."`
	Networks []string `arg:"" name:"network" placeholder:"NETWORK…" help:"Names of networks."`
}

// Help is what kong shows below the flags.
func (*networkRmCmd) Help() string {
	return `A network with sandboxes, even ones that have ended, is not removed.

Example:
  whisk network rm lan`
}

func (n *networkRmCmd) run(ctx context.Context, c *call) error {
	if err := c.reconcile(ctx); err != nil {
		return err
	}
	var first error
	for _, name := range n.Networks {
		err := launcher.RemoveNetwork(c.dirs, name)
		if e, ok := errors.AsType[*launcher.Error](err); ok && n.Force && e.Kind == launcher.KindNotFound {
			continue
		}
		if err != nil {
			if first == nil {
				first = err
			} else {
				c.fault(err)
			}
			continue
		}
		if _, err := fmt.Fprintln(c.out, name); err != nil {
			return err
		}
	}
	return first
}
