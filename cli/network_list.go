package cli

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/keeper"
)

// The kinds of networks.
const (
	networkCreated = "created" // by whisk network create
	networkProject = "project" // of a project, whose name it has
	networkJoined  = "joined"  // of sandboxes that name it
)

// networkRow is one network in whisk network ls --json and inspect.
type networkRow struct {
	Name      string          `json:"name"`
	Kind      string          `json:"kind"`
	Running   bool            `json:"running"`
	Egress    string          `json:"egress"`
	Isolate   bool            `json:"isolate"`
	IPv4      string          `json:"ipv4,omitempty"` // subnet; empty before it runs where whisk chooses it
	IPv6      string          `json:"ipv6,omitempty"`
	Gateway   []string        `json:"gateway,omitempty"`
	Warnings  []string        `json:"warnings,omitempty"`
	CreatedAt time.Time       `json:"created_at,omitzero"`
	Sandboxes []networkMember `json:"sandboxes"`
}

// networkMember is a sandbox of a network.
type networkMember struct {
	ID      string         `json:"id"`
	Name    string         `json:"name"`
	App     string         `json:"app,omitempty"`
	State   launcher.State `json:"state"`
	IPv4    string         `json:"ipv4,omitempty"`
	IPv6    string         `json:"ipv6,omitempty"`
	Aliases []string       `json:"aliases,omitempty"`
}

// networks are those that were created and those that sandboxes share, by name.
func (c *call) networks(ctx context.Context) ([]networkRow, error) {
	if err := c.reconcile(ctx); err != nil {
		return nil, err
	}
	created, err := launcher.Networks(c.dirs)
	if err != nil {
		return nil, err
	}
	records, err := launcher.Records(c.dirs)
	if err != nil {
		return nil, err
	}
	rows := networkRows(created, records)
	for i := range rows {
		if err := c.live(ctx, &rows[i]); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// networkRows puts what was created and who is there together. A network of a sandbox's own is none of them.
func networkRows(created []launcher.Network, records []launcher.Record) []networkRow {
	rows := []networkRow{}
	for _, n := range created {
		row := networkRow{Name: n.Name, Kind: networkCreated, Egress: n.Egress, Isolate: n.Isolate, CreatedAt: n.CreatedAt, Sandboxes: []networkMember{}}
		if n.IPv4.IsValid() {
			row.IPv4 = n.IPv4.String()
		}
		if n.IPv6.IsValid() {
			row.IPv6 = n.IPv6.String()
		}
		rows = append(rows, row)
	}
	for _, r := range records {
		if r.Network == "none" || r.Network == r.ID {
			continue
		}
		row := findNetwork(rows, r.Network)
		if row == nil {
			rows = append(rows, networkRow{Name: r.Network, Kind: networkJoined, Egress: cmp.Or(r.Egress, "all")})
			row = &rows[len(rows)-1]
		}
		if row.Kind == networkJoined && r.Project == r.Network {
			row.Kind, row.Egress = networkProject, cmp.Or(r.Egress, "all")
		}
		row.Isolate = row.Isolate || r.Isolate
		m := networkMember{ID: r.ID, Name: r.Name, State: r.State, IPv4: r.IPv4, IPv6: r.IPv6, Aliases: slices.Concat(r.Aliases, r.App.Aliases)}
		if r.Project != "" {
			m.App = r.App.Name
		}
		row.Sandboxes = append(row.Sandboxes, m)
	}
	slices.SortFunc(rows, func(a, b networkRow) int { return strings.Compare(a.Name, b.Name) })
	return rows
}

func findNetwork(rows []networkRow, name string) *networkRow {
	i := slices.IndexFunc(rows, func(r networkRow) bool { return r.Name == name })
	if i < 0 {
		return nil
	}
	return &rows[i]
}

// live adds what only the network's keeper knows.
func (c *call) live(ctx context.Context, row *networkRow) error {
	client, err := keeper.Dial(ctx, c.dirs, row.Name)
	if errors.Is(err, keeper.ErrNoKeeper) {
		return nil
	}
	if err != nil {
		return err
	}
	defer client.Close()
	info, err := client.Network(ctx)
	switch {
	case errors.Is(err, keeper.ErrNoKeeper):
		return nil
	case err != nil:
		return err
	case info == nil:
		return nil
	}
	row.Running, row.Egress, row.IPv4, row.IPv6 = true, info.Egress, info.IPv4.String(), info.IPv6.String()
	row.Warnings = info.Warnings
	for _, a := range info.Gateway {
		row.Gateway = append(row.Gateway, a.String())
	}
	return nil
}
