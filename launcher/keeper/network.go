package keeper

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"net/netip"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/slirp"
)

// NetworkInfo is what a keeper's network is like while it runs.
type NetworkInfo struct {
	IPv4    netip.Prefix `json:"ipv4"`
	IPv6    netip.Prefix `json:"ipv6"`
	Gateway []netip.Addr `json:"gateway"` // the router's address of each family
	Egress  string       `json:"egress"`
	// Warnings say what does not work as it should on this machine, one line each.
	Warnings []string `json:"warnings,omitempty"`
}

// makeNetwork makes the network that the keeper holds, as whisk network create has described it.
func makeNetwork(ctx context.Context, doc *stage, egress string, log slog.Handler, onFlow func(slirp.Flow)) (*slirp.Network, launcher.Network, error) {
	settings, err := launcher.NetworkSettings(doc.Dirs, doc.Network)
	if err != nil {
		return nil, settings, err
	}
	c := slirp.Config{Name: doc.Network, IPv4: settings.IPv4, IPv6: settings.IPv6, Egress: cmp.Or(settings.Egress, egress), Log: slog.New(log), OnFlow: onFlow}
	settings.Egress = c.Egress
	if !c.IPv4.IsValid() || !c.IPv6.IsValid() {
		taken, _ := slirp.HostPrefixes() // without the list, a clash is as unlikely as the hash makes it
		v4, v6 := slirp.ChoosePrefixes(doc.Network, taken)
		if !c.IPv4.IsValid() {
			c.IPv4 = v4
		}
		if !c.IPv6.IsValid() {
			c.IPv6 = v6
		}
	}
	settings.IPv4, settings.IPv6 = c.IPv4, c.IPv6
	n, err := slirp.New(ctx, c)
	return n, settings, err
}

func (s *server) handleNetwork(_ *http.Request, out *reply) error {
	s.mu.Lock()
	n, settings := s.net, s.settings
	s.mu.Unlock()
	if n == nil {
		return nil
	}
	v4, v6 := n.Gateway()
	out.send(Event{Type: EventNetwork, Network: &NetworkInfo{IPv4: settings.IPv4, IPv6: settings.IPv6, Gateway: []netip.Addr{v4, v6}, Egress: settings.Egress, Warnings: s.warnings.all()}})
	return nil
}

// Network asks what the network is like; nil if it has none, because its sandboxes want none.
func (c *Client) Network(ctx context.Context) (*NetworkInfo, error) {
	var info *NetworkInfo
	err := c.do(ctx, "/v1/network", nil, nil, func(ev Event) {
		if ev.Network != nil {
			info = ev.Network
		}
	})
	return info, err
}
