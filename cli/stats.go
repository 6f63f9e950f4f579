package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/cgroup"
)

// statsPeriod is over what time the use of processors is measured, and how often the table is drawn anew.
const statsPeriod = time.Second

type statsCmd struct {
	All      bool `short:"a" help:"List those that do not run, too."`
	NoStream bool `help:"Print once and end."`
	listFlags
	File      string   `placeholder:"FILE" help:"The project's whisk.toml."`
	Sandboxes []string `arg:"" optional:"" placeholder:"[SANDBOX…]" help:"Sandboxes; without any, all that run."`
}

// Help is what kong shows below the flags.
func (*statsCmd) Help() string {
	return `The figures are those of a sandbox's control group, and - where it has none: on
a machine without control groups of version 2 and a systemd of your own, and for
sandboxes in the foreground that ask for no limit. CPU is a share of one
processor over the last second. With --json a list is printed each second, one a
line.

Examples:
  whisk stats
  whisk stats --no-stream --json web | jq '.[0].memory'`
}

// statsRow is one sandbox in whisk stats --json.
type statsRow struct {
	ID    string         `json:"id"`
	Name  string         `json:"name"`
	State launcher.State `json:"state"`
	// Percent is of one processor, over the last second.
	Percent float64 `json:"cpu_percent"`
	// Stats is null where there is no control group.
	Stats *cgroup.Stats `json:"stats"`
}

func (s *statsCmd) run(ctx context.Context, c *call) error {
	before, err := s.read(c)
	if err != nil {
		return err
	}
	for began := time.Now(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(statsPeriod):
		}
		now := time.Now()
		rows, err := s.read(c)
		if err != nil {
			return err
		}
		share(rows, before, now.Sub(began))
		before, began = rows, now
		if err := s.print(c, rows); err != nil || s.NoStream {
			return err
		}
	}
}

// read takes the figures of the sandboxes that are asked for.
func (s *statsCmd) read(c *call) ([]statsRow, error) {
	records, err := s.chosen(c)
	if err != nil {
		return nil, err
	}
	rows := make([]statsRow, 0, len(records))
	for _, r := range records {
		row := statsRow{ID: r.ID, Name: displayName(&r), State: r.State}
		if r.ControlGroup != "" {
			if row.Stats, err = figures(r.ControlGroup); err != nil {
				return nil, err
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// figures reads a group; nil for one that has just gone.
func figures(path string) (*cgroup.Stats, error) {
	g, err := cgroup.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	st, err := g.Stats()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return &st, err
}

func (s *statsCmd) chosen(c *call) ([]launcher.Record, error) {
	if len(s.Sandboxes) > 0 {
		found, err := c.records(s.Sandboxes, s.File)
		if err != nil {
			return nil, err
		}
		out := make([]launcher.Record, 0, len(found))
		for _, r := range found {
			out = append(out, *r)
		}
		return out, nil
	}
	records, err := launcher.Records(c.dirs)
	if err != nil || s.All {
		return records, err
	}
	return slices.DeleteFunc(records, func(r launcher.Record) bool { return r.State != launcher.Running }), nil
}

// share reckons what part of a processor each sandbox had since the rows before.
func share(rows, before []statsRow, over time.Duration) {
	for i := range rows {
		at := slices.IndexFunc(before, func(b statsRow) bool { return b.ID == rows[i].ID })
		if at < 0 || rows[i].Stats == nil || before[at].Stats == nil || over <= 0 {
			continue
		}
		used := max(0, rows[i].Stats.CPU-before[at].Stats.CPU) // a restart begins at zero
		rows[i].Percent = 100 * float64(used) / float64(over)
	}
}

func (s *statsCmd) print(c *call, rows []statsRow) error {
	switch {
	case s.json() && s.NoStream:
		return writeJSON(c.out, rows)
	case s.json():
		return writeJSONLine(c.out, rows)
	}
	return statsTable(rows).write(c.out)
}

func statsTable(rows []statsRow) *table {
	t := &table{head: []string{"ID", "NAME", "CPU", "MEMORY", "LIMIT", "PIDS", "READ", "WRITTEN", "OOM KILLS"}}
	for _, r := range rows {
		if r.Stats == nil {
			t.add(r.ID, r.Name, "-", "-", "-", "-", "-", "-", "-")
			continue
		}
		limit := "-"
		if r.Stats.MemoryLimit > 0 {
			limit = config.SizeText(r.Stats.MemoryLimit)
		}
		t.add(r.ID, r.Name, fmt.Sprintf("%.1f%%", r.Percent), size(r.Stats.Memory), limit, fmt.Sprint(r.Stats.Pids), size(r.Stats.ReadBytes), size(r.Stats.WriteBytes), fmt.Sprint(r.Stats.OOMKills))
	}
	return t
}
