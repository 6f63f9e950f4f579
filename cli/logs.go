package cli

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
)

type logsCmd struct {
	Follow     bool     `short:"f" help:"Go on until the sandboxes have ended."`
	Since      string   `placeholder:"TIME" help:"Only lines since a time (2026-01-02T15:04:05Z, 2026-01-02) or for a while (10m)."`
	Tail       string   `short:"n" default:"all" placeholder:"LINES" help:"Only so many lines from the end of each."`
	Timestamps bool     `short:"t" help:"Show when each line was written."`
	JSON       bool     `name:"json" help:"Print a JSON document a line."`
	File       string   `placeholder:"FILE" help:"The project's whisk.toml."`
	Sandboxes  []string `arg:"" optional:"" name:"sandbox" placeholder:"[SANDBOX…]" help:"Sandboxes; without one all apps of the project."`
}

// Help is what kong shows below the flags.
func (*logsCmd) Help() string {
	return `Lines of one sandbox are printed as they are, its standard error to standard
error. Those of several are put in the order of time behind the app's name.

Examples:
  whisk logs -f web
  whisk logs --since 10m --tail 100`
}

func (l *logsCmd) run(ctx context.Context, c *call) error {
	o := launcher.LogOptions{Follow: l.Follow, Tail: -1}
	var err error
	if o.Since, err = since(l.Since, time.Now()); err != nil {
		return err
	}
	if o.Tail, err = tail(l.Tail); err != nil {
		return err
	}
	records, err := l.records(c)
	if err != nil {
		return err
	}
	p := &logPrinter{out: c.out, err: c.err, timestamps: l.Timestamps, json: l.JSON}
	if len(l.Sandboxes) != 1 {
		names := make([]string, len(records))
		for i, r := range records {
			names[i] = logName(r)
		}
		p.prefix = newPrefixer(c.out, c.getenv, names)
	}
	if l.Follow {
		return follow(ctx, c.dirs, records, o, p)
	}
	return inOrder(ctx, c.dirs, records, o, p)
}

// records are those that were named, or all of the project.
func (l *logsCmd) records(c *call) ([]*launcher.Record, error) {
	if len(l.Sandboxes) > 0 {
		return c.records(l.Sandboxes, l.File)
	}
	p, err := c.loadProject(l.File)
	if errors.Is(err, config.ErrNoProject) {
		return nil, usage("whisk logs SANDBOX, or go to a folder with a whisk.toml", "a sandbox is missing")
	}
	if err != nil {
		return nil, err
	}
	return projectRecords(c.dirs, p.Name)
}

// logName is what a sandbox's lines are told by.
func logName(r *launcher.Record) string {
	if r.Project != "" {
		return r.App.Name
	}
	return r.Name
}

// since reads a point in time, or a length of time before now.
func since(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	d, err := config.ParseDuration(text)
	if err != nil {
		return time.Time{}, usage("--since 10m, or --since 2026-01-02T15:04:05", "--since: %q is neither a time nor a length of time", text)
	}
	return now.Add(-d), nil
}

// tail reads a number of lines; all is -1.
func tail(text string) (int, error) {
	if text == "all" || text == "-1" {
		return -1, nil
	}
	n := 0
	for _, r := range text {
		if r < '0' || r > '9' || n > 1<<30 {
			return 0, usage("--tail 100, or --tail all", "--tail: %q is not a number of lines", text)
		}
		n = 10*n + int(r-'0')
	}
	if text == "" {
		return 0, usage("--tail 100, or --tail all", "--tail: a number of lines is missing")
	}
	return n, nil
}

// logPrinter prints lines of logs. It is safe for use by several goroutines.
type logPrinter struct {
	mu         sync.Mutex
	out, err   io.Writer
	prefix     *prefixer // nil: one sandbox, whose lines are printed as they are
	timestamps bool
	json       bool
}

// logDocument is a line in whisk logs --json.
type logDocument struct {
	App    string    `json:"app"`
	Time   time.Time `json:"time"`
	Stream string    `json:"stream"`
	Text   string    `json:"text"`
}

func (p *logPrinter) print(name string, line launcher.LogLine) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.json {
		return writeJSONLine(p.out, logDocument{name, line.Time, line.Stream, line.Text})
	}
	w := p.out
	var b strings.Builder
	if p.prefix != nil {
		b.WriteString(p.prefix.prefix(name))
	} else if line.Stream == "stderr" {
		w = p.err
	}
	if p.timestamps {
		b.WriteString(line.Time.Format(time.RFC3339Nano) + " ")
	}
	// Lines of one app are shown raw, as docker does: its colours are wanted. Between others' lines its cursor
	// movements would overwrite them.
	if p.prefix != nil {
		b.WriteString(keepColours(strings.TrimSuffix(line.Text, "\r")))
	} else {
		b.WriteString(line.Text)
	}
	if !line.Partial || p.prefix != nil {
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// keepColours is printable but for tabs and for the sequences that set colours (ECMA-48 SGR: ESC [ digits ; m),
// which it ends.
func keepColours(text string) string {
	if !strings.Contains(text, "\x1b[") {
		return tabsKept(text)
	}
	var b strings.Builder
	coloured := false
	for {
		i := strings.Index(text, "\x1b[")
		if i < 0 {
			break
		}
		b.WriteString(tabsKept(text[:i]))
		n := len(text[i+2:]) - len(strings.TrimLeft(text[i+2:], "0123456789;"))
		end := i + 2 + n
		if end < len(text) && text[end] == 'm' {
			b.WriteString(text[i : end+1])
			coloured = true
			text = text[end+1:]
			continue
		}
		b.WriteString(printable(text[i : i+1]))
		text = text[i+1:]
	}
	b.WriteString(tabsKept(text))
	if coloured {
		b.WriteString("\x1b[0m")
	}
	return b.String()
}

func tabsKept(text string) string {
	parts := strings.Split(text, "\t")
	for i, p := range parts {
		parts[i] = printable(p)
	}
	return strings.Join(parts, "\t")
}

// follow prints lines as they come until all sandboxes have ended.
func follow(ctx context.Context, d launcher.Dirs, records []*launcher.Record, o launcher.LogOptions, p *logPrinter) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	faults := make(chan error, len(records))
	for _, r := range records {
		go func() {
			faults <- launcher.ReadLog(ctx, d, r.ID, o, func(line launcher.LogLine) error { return p.print(logName(r), line) })
		}()
	}
	var first error
	for range records {
		if err := <-faults; err != nil && first == nil {
			first = err
			cancel() // nobody reads what is printed
		}
	}
	return first
}

// inOrder prints the lines of all logs in the order of time, holding one of each.
func inOrder(ctx context.Context, d launcher.Dirs, records []*launcher.Record, o launcher.LogOptions, p *logPrinter) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type source struct {
		name  string
		lines chan launcher.LogLine
		fault error // valid when lines is closed
		next  launcher.LogLine
		live  bool
	}
	sources := make([]*source, len(records))
	for i, r := range records {
		s := &source{name: logName(r), lines: make(chan launcher.LogLine, 64)}
		sources[i] = s
		go func() {
			defer close(s.lines)
			s.fault = launcher.ReadLog(ctx, d, r.ID, o, func(line launcher.LogLine) error {
				select {
				case s.lines <- line:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
		}()
	}
	for _, s := range sources {
		s.next, s.live = <-s.lines
	}
	for {
		var first *source
		for _, s := range sources {
			if s.live && (first == nil || s.next.Time.Before(first.next.Time)) {
				first = s
			}
		}
		if first == nil {
			break
		}
		if err := p.print(first.name, first.next); err != nil {
			return err
		}
		first.next, first.live = <-first.lines
	}
	for _, s := range sources {
		if s.fault != nil {
			return s.fault
		}
	}
	return nil
}
