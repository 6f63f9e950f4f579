package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/whisk-sandbox/whisk/launcher"
)

type egressLogCmd struct {
	Follow    bool     `short:"f" help:"Go on until the network, or the sandboxes named, have ended."`
	Since     string   `placeholder:"TIME" help:"Only flows that ended since a time (2026-01-02T15:04:05Z, 2026-01-02) or in a while (10m)."`
	Tail      string   `short:"n" default:"all" placeholder:"LINES" help:"Only so many lines from the end."`
	Denied    bool     `help:"Only what was denied."`
	JSON      bool     `name:"json" help:"Print a JSON document a line."`
	File      string   `placeholder:"FILE" help:"The project's whisk.toml."`
	Sandboxes []string `arg:"" optional:"" name:"sandbox" placeholder:"[SANDBOX…]" help:"Sandboxes, apps or networks; without one all that is on the project's network."`
}

// Help is what kong shows below the flags.
func (*egressLogCmd) Help() string {
	return `A flow is shown when it has ended, or at once where it is denied. NAME is what
the app's DNS had called the address, (+1) that it was asked for another name of
the same address, too; a flow without a name went to a bare address.
SENT and RECEIVED are bytes of payload. The log of a project outlives down, and
begins anew with up.

Examples:
  whisk egress log
  whisk egress log -f --denied web
  whisk egress log --json --since 10m | jq -r .name`
}

func (l *egressLogCmd) run(ctx context.Context, c *call) error {
	o := launcher.LogOptions{Follow: l.Follow}
	var err error
	if o.Since, err = since(l.Since, time.Now()); err != nil {
		return err
	}
	if o.Tail, err = tail(l.Tail); err != nil {
		return err
	}
	sources, err := c.flowSources(l.Sandboxes, l.File)
	if err != nil {
		return err
	}
	if !l.Follow {
		c.awaitFlows(ctx, sources)
	}
	p := &flowPrinter{out: c.out, json: l.JSON, follow: l.Follow, zone: time.Local}
	return c.eachFlow(ctx, sources, launcher.FlowOptions{LogOptions: o, Denied: l.Denied}, p)
}

// flowsWritten is for how long flows of a sandbox that has just ended are waited for. The keeper writes the last of
// them down behind the back of the command that ran it, some ten milliseconds later.
const flowsWritten = 2 * time.Second

// awaitFlows waits for networks whose sandboxes have all ended already.
func (c *call) awaitFlows(ctx context.Context, sources []*flowSource) {
	ctx, cancel := context.WithTimeout(ctx, flowsWritten)
	defer cancel()
	for _, s := range sources {
		for launcher.Held(c.dirs, s.network) && !launcher.Busy(c.dirs, s.network) && ctx.Err() == nil {
			time.Sleep(2 * time.Millisecond)
		}
	}
}

// eachFlow prints the flows of several logs: in the order of time, or as they come.
func (c *call) eachFlow(ctx context.Context, sources []*flowSource, o launcher.FlowOptions, p *flowPrinter) error {
	var mu sync.Mutex
	var all []launcher.FlowLine
	read := func(s *flowSource, each func(launcher.FlowLine) error) error {
		own := o
		own.Apps = s.apps
		own.Ended = launcher.FlowsEnded(c.dirs, s.network, s.ids)
		return launcher.ReadFlows(ctx, s.file, own, func(l launcher.FlowLine) error {
			if s.label != "" {
				l.App = s.label
			}
			return each(l)
		})
	}
	if !o.Follow {
		for _, s := range sources {
			if err := read(s, func(l launcher.FlowLine) error { all = append(all, l); return nil }); err != nil {
				return err
			}
		}
		slices.SortStableFunc(all, func(a, b launcher.FlowLine) int { return a.Time.Compare(b.Time) })
		if o.Tail >= 0 && len(all) > o.Tail {
			all = all[len(all)-o.Tail:]
		}
		return p.print(all...)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := p.print(); err != nil {
		return err
	}
	faults := make(chan error, len(sources))
	for _, s := range sources {
		go func() {
			faults <- read(s, func(l launcher.FlowLine) error {
				mu.Lock()
				defer mu.Unlock()
				return p.print(l)
			})
		}()
	}
	var first error
	for range sources {
		if err := <-faults; err != nil && first == nil {
			first = err
			cancel() // nobody reads what is printed
		}
	}
	return first
}

// flowHead are the columns of whisk egress log.
var flowHead = []string{"TIME", "APP", "VERDICT", "PROTOCOL", "NAME", "ADDRESS", "SENT", "RECEIVED", "WHY"}

// flowPrinter prints flows as a table or as JSON. A table that follows its log has columns that grow as they must.
type flowPrinter struct {
	out    io.Writer
	json   bool
	follow bool
	zone   *time.Location
	width  []int
}

// print adds lines, below the head if they are the first.
func (p *flowPrinter) print(lines ...launcher.FlowLine) error {
	if p.json {
		for _, l := range lines {
			if err := writeJSONLine(p.out, l); err != nil {
				return err
			}
		}
		return nil
	}
	t := &table{}
	if p.width == nil {
		t.head = flowHead
		// What most lines fill, so that the first ones of a log that is followed stand under the head.
		p.width = make([]int, len(flowHead))
		if p.follow {
			p.width = []int{19, 8, 7, 8, 24, 21, 8, 8, 0}
		}
	}
	for i := range lines {
		t.add(p.cells(&lines[i])...)
	}
	return t.writeWider(p.out, p.width)
}

func (p *flowPrinter) cells(l *launcher.FlowLine) []string {
	address := l.Address
	if l.Port != 0 {
		address = net.JoinHostPort(address, strconv.Itoa(int(l.Port)))
	}
	why := l.Why
	if l.Verdict == launcher.FlowLost {
		why = fmt.Sprintf("came too fast to be written down: %d", l.Count)
	} else if l.Count > 1 {
		why = strings.TrimPrefix(fmt.Sprintf("%s (%d times)", why, l.Count), " ")
	}
	name := l.Name
	if len(l.Also) > 0 {
		name = fmt.Sprintf("%s (+%d)", name, len(l.Also))
	}
	cells := []string{l.Time.In(p.zone).Format(time.DateTime), l.App, l.Verdict, l.Protocol, name, address, size(l.Sent), size(l.Received), why}
	for i, cell := range cells {
		if cell == "" && i < len(cells)-1 {
			cells[i] = "-"
		}
	}
	return cells
}
