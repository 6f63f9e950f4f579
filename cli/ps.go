package cli

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/whisk-sandbox/whisk/launcher"
)

type psCmd struct {
	All     bool     `short:"a" help:"List those that have ended, too."`
	Filter  []string `short:"f" sep:"none" placeholder:"KEY=VALUE" help:"List only those that match: label=KEY[=VALUE], name=REGEXP, or status=created, running or exited."`
	Quiet   bool     `short:"q" help:"Print ids only."`
	NoTrunc bool     `help:"Do not shorten images."`
	listFlags
}

// Help is what kong shows below the flags.
func (*psCmd) Help() string {
	return `Examples:
  whisk ps
  whisk ps -a --json | jq '.[].name'
  whisk ps --filter label=tier=front`
}

// psRow is one sandbox in whisk ps --json.
type psRow struct {
	ID        string                   `json:"id"`
	Name      string                   `json:"name"`
	Project   string                   `json:"project,omitempty"`
	App       string                   `json:"app,omitempty"`
	Image     string                   `json:"image"`
	State     launcher.State           `json:"state"`
	Ready     bool                     `json:"ready"`
	ExitCode  int                      `json:"exit_code"`
	CreatedAt time.Time                `json:"created_at"`
	StartedAt time.Time                `json:"started_at,omitzero"`
	Network   string                   `json:"network"`
	IPv4      string                   `json:"ipv4,omitempty"`
	IPv6      string                   `json:"ipv6,omitempty"`
	Ports     []launcher.PublishedPort `json:"ports"`
	Labels    map[string]string        `json:"labels,omitempty"`
	PID       int                      `json:"pid,omitempty"`
}

func (p *psCmd) run(ctx context.Context, c *call) error {
	f, err := parseFilters(p.Filter, "label", "name", "status")
	if err != nil {
		return err
	}
	for _, s := range f["status"] {
		if !slices.Contains([]launcher.State{launcher.Created, launcher.Running, launcher.Exited}, launcher.State(s)) {
			return usage("it is created, running or exited", "--filter: no sandbox is %q", s)
		}
	}
	if err := c.reconcile(ctx); err != nil {
		return err
	}
	records, err := launcher.Records(c.dirs)
	if err != nil {
		return err
	}
	records = slices.DeleteFunc(records, func(r launcher.Record) bool {
		hidden := !p.All && len(f["status"]) == 0 && r.State != launcher.Running
		return hidden || !f.labels(r.App.Labels) || !f.name(r.Name) || !f.is("status", string(r.State))
	})
	switch {
	case p.Quiet:
		for _, r := range records {
			if _, err := fmt.Fprintln(c.out, r.ID); err != nil {
				return err
			}
		}
		return nil
	case p.json():
		return writeJSON(c.out, psRows(records))
	}
	return psTable(records, time.Now(), p.NoTrunc).write(c.out)
}

func psRows(records []launcher.Record) []psRow {
	rows := make([]psRow, 0, len(records))
	for _, r := range records {
		row := psRow{
			ID: r.ID, Name: r.Name, Project: r.Project, Image: r.App.Image, State: r.State, Ready: r.Ready, ExitCode: r.ExitCode,
			CreatedAt: r.CreatedAt, StartedAt: r.StartedAt, Network: r.Network, IPv4: r.IPv4, IPv6: r.IPv6,
			Ports: r.Ports, Labels: r.App.Labels, PID: r.PID,
		}
		if r.Project != "" {
			row.App = r.App.Name
		}
		if row.Ports == nil {
			row.Ports = []launcher.PublishedPort{}
		}
		rows = append(rows, row)
	}
	return rows
}

// imageWidth is how much of an image's name the table shows: with it a line of the table fits 100 columns.
const imageWidth = 30

func psTable(records []launcher.Record, now time.Time, whole bool) *table {
	t := &table{head: []string{"ID", "NAME", "IMAGE", "STATE", "AGE", "IP", "PORTS"}}
	for _, r := range records {
		image := r.App.Image
		if n := len(image); n > imageWidth && !whole {
			image = "…" + image[n-imageWidth+1:] // the end tells images apart, the registry does not
		}
		t.add(r.ID, displayName(&r), image, stateText(&r), age(now.Sub(r.CreatedAt)), r.IPv4, strings.Join(portTexts(r.Ports), ", "))
	}
	return t
}

// stateText is a sandbox's state as the table shows it.
func stateText(r *launcher.Record) string {
	switch {
	case r.State == launcher.Exited:
		return fmt.Sprintf("exited (%d)", r.ExitCode)
	case r.State == launcher.Running && !r.Ready && r.App.Ready != nil:
		return "running, not ready"
	}
	return string(r.State)
}

// portTexts shows published ports, joining runs of them to ranges.
func portTexts(ports []launcher.PublishedPort) []string {
	var texts []string
	for i := 0; i < len(ports); {
		first, n := ports[i], 1
		for i+n < len(ports) {
			next := first
			next.HostPort += uint16(n)
			next.AppPort += uint16(n)
			if ports[i+n] != next {
				break
			}
			n++
		}
		i += n
		texts = append(texts, fmt.Sprintf("%s->%s/%s", hostPort(first.HostIP, portSpan(first.HostPort, n)), portSpan(first.AppPort, n), first.Protocol))
	}
	return texts
}

func portSpan(first uint16, n int) string {
	if n == 1 {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, int(first)+n-1)
}

// hostPort is net.JoinHostPort for an address that may not be one.
func hostPort(ip, port string) string {
	if a, err := netip.ParseAddr(ip); err == nil && a.Is6() {
		return "[" + ip + "]:" + port
	}
	return ip + ":" + port
}
