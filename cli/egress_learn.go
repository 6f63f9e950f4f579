package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
)

type egressLearnCmd struct {
	FromLog bool     `help:"Start nothing: learn from the flows that are in the log."`
	JSON    bool     `name:"json" help:"Print JSON."`
	File    string   `short:"f" placeholder:"FILE" help:"The project's whisk.toml; without it the nearest from here upwards."`
	Apps    []string `arg:"" optional:"" name:"app" placeholder:"[APP…]" help:"Apps to learn of; without one all."`
}

// Help is what kong shows below the flags.
func (*egressLearnCmd) Help() string {
	return `The project is started in the foreground with egress open, whatever whisk.toml
says, until ctrl-c or until all apps have ended. Then the shortest list is
printed that would have allowed what they reached, for the network and for each
app, and the sandboxes are removed. A project that runs already is left alone,
and its log read.

What was denied is not learned. Look at the list before you trust it: it allows
what the apps did, not what they should do.

Examples:
  whisk egress learn
  whisk egress learn --from-log web`
}

func (l *egressLearnCmd) run(ctx context.Context, c *call) error {
	p, err := c.loadProject(l.File)
	if err != nil && (!errors.Is(err, config.ErrNoProject) || len(l.Apps) == 0) {
		return err
	}
	if !l.FromLog && p != nil {
		if err := c.runOpen(ctx, p, l.Apps); err != nil {
			return err
		}
	}
	sources, err := c.flowSources(l.Apps, l.File)
	if err != nil {
		return err
	}
	c.awaitFlows(ctx, sources)
	learned, err := c.learn(ctx, sources, l.Apps)
	if err != nil {
		return err
	}
	if l.JSON {
		return writeJSON(c.out, learned.document())
	}
	return learned.write(c.out, p, len(l.Apps) == 0)
}

// runOpen is up in the foreground with egress open, and then down: a sandbox that could be started again would be open
// again. Standard output is for the list. What runs already is left alone.
func (c *call) runOpen(ctx context.Context, p *config.Project, apps []string) error {
	records, err := projectRecords(c.dirs, p.Name)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(records, func(r *launcher.Record) bool { return r.State == launcher.Running }) {
		c.warnf("project %q runs already: learning from its log", p.Name)
		c.closedNote(records)
		return nil
	}
	if len(records) > 0 {
		return usage("whisk down, or whisk egress learn --from-log", "project %q has sandboxes that are stopped, which learning would take the place of", p.Name)
	}
	aside := *c
	aside.out = c.err
	open := openEgress(p)
	err = aside.up(ctx, open, &upCmd{Pull: "missing", Apps: apps})
	downErr := aside.down(ctx, open.Name, nil, downOptions{anonymous: true})
	if _, ended := errors.AsType[status](err); err != nil && !ended {
		if e, ok := errors.AsType[*launcher.Error](err); ok && strings.HasPrefix(e.Hint, "whisk logs ") {
			e.Hint = "" // the log is gone with the sandbox, and has been shown
		}
		return err
	}
	// It has ended by itself, by ctrl-c, or with an app that has failed, which was told.
	return downErr
}

// openEgress is a project that may reach everything.
func openEgress(p *config.Project) *config.Project {
	open := *p
	open.Egress = string(config.EgressAll)
	open.Apps = slices.Clone(p.Apps)
	for i := range open.Apps {
		open.Apps[i].Egress = ""
	}
	return &open
}

// closedNote says that a log cannot tell all, as the network was not open.
func (c *call) closedNote(records []*launcher.Record) {
	if i := slices.IndexFunc(records, func(r *launcher.Record) bool {
		return cmp.Or(r.App.Egress, r.Egress, string(config.EgressAll)) != string(config.EgressAll)
	}); i >= 0 {
		c.warnf("its egress is not open: what it was denied is not learned")
		c.hint("whisk down, then whisk egress learn")
	}
}

// learning is what was learned, and from which logs.
type learning struct {
	launcher.Learned
	private map[string]bool // those that are sandboxes with a network of their own, and no apps
}

// learn reads the logs, which were named by words, and says what is not learned from them.
func (c *call) learn(ctx context.Context, sources []*flowSource, words []string) (*learning, error) {
	l := &learning{private: map[string]bool{}}
	var lines []launcher.FlowLine
	var apps []string
	for _, s := range sources {
		if s.label != "" {
			l.private[s.label] = true
			apps = append(apps, s.label)
		} else {
			apps = append(apps, s.apps...)
		}
		o := launcher.FlowOptions{LogOptions: launcher.LogOptions{Tail: -1}, Apps: s.apps}
		if err := launcher.ReadFlows(ctx, s.file, o, func(line launcher.FlowLine) error {
			if s.label != "" {
				line.App = s.label
			}
			lines = append(lines, line)
			return nil
		}); err != nil {
			return nil, err
		}
	}
	l.Learned = launcher.LearnEgress(lines, apps)
	if l.Flows == 0 {
		c.warn("no flow was seen that was allowed")
	}
	if l.Denied > 0 {
		c.warnf("flows left out, as they were denied: %d", l.Denied)
		c.hint(strings.Join(append([]string{"whisk egress log --denied"}, words...), " "))
	}
	if n := l.Summed + l.Lost; n > 0 {
		c.warnf("flows left out, as they came too fast to be written down one by one: %d", n)
	}
	return l, nil
}

// learnedDocument is whisk egress learn --json.
type learnedDocument struct {
	Network   []string            `json:"network"`             // what all together needed
	Apps      map[string][]string `json:"apps"`                // what each needed
	Wildcards map[string]int      `json:"wildcards,omitempty"` // rules that would stand for so many of network's
	Flows     int                 `json:"flows"`               // that were learned from
	Denied    int                 `json:"denied"`              // that were left out
	Missing   int                 `json:"missing"`             // of which the log has no destination
}

func (l *learning) document() learnedDocument {
	d := learnedDocument{Network: ruleTexts(l.Network), Apps: map[string][]string{}, Flows: l.Flows, Denied: l.Denied, Missing: l.Summed + l.Lost}
	for app, needs := range l.Apps {
		d.Apps[app] = ruleTexts(needs)
	}
	for rule, n := range launcher.Wildcards(l.Network) {
		if d.Wildcards == nil {
			d.Wildcards = map[string]int{}
		}
		d.Wildcards[rule] = len(n)
	}
	return d
}

func ruleTexts(needs []launcher.EgressNeed) []string {
	texts := make([]string, len(needs))
	for i, n := range needs {
		texts[i] = n.String()
	}
	return texts
}

// write prints the lists as whisk.toml has them. p is nil where there is none.
func (l *learning) write(w io.Writer, p *config.Project, whole bool) error {
	var parts []string
	if whole {
		parts = append(parts, "# for the whole project\n[network]\n"+egressTOML(l.Network))
	}
	for _, app := range slices.Sorted(maps.Keys(l.Apps)) {
		list := egressTOML(l.Apps[app])
		switch {
		case l.private[app]:
			parts = append(parts, fmt.Sprintf("# sandbox %s\n%s", app, list))
		case p != nil && !hasApp(p, app):
			parts = append(parts, commented(fmt.Sprintf("sandbox %s, which is not in whisk.toml\n%s", app, list)))
		default:
			parts = append(parts, fmt.Sprintf("[app.%s]\n%s", tomlKey(app), list))
		}
	}
	if whole && len(parts) > 1 {
		parts[1] = "# or for each app\n" + parts[1]
	}
	_, err := io.WriteString(w, strings.Join(parts, "\n"))
	return err
}

// egressTOML is one list, with the wildcards that would make it shorter as comments.
func egressTOML(needs []launcher.EgressNeed) string {
	if len(needs) == 0 {
		return "egress = \"none\"\n"
	}
	var b strings.Builder
	wild := launcher.Wildcards(needs)
	for _, rule := range slices.Sorted(maps.Keys(wild)) {
		fmt.Fprintf(&b, "# %q would stand for %d of these\n", rule, len(wild[rule]))
	}
	b.WriteString("egress = [\n")
	for _, text := range ruleTexts(needs) {
		fmt.Fprintf(&b, "  %q,\n", text)
	}
	b.WriteString("]\n")
	return b.String()
}

func commented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("# " + line)
	}
	return b.String()
}

// tomlKey is a name as a part of a table's name.
func tomlKey(name string) string {
	for _, r := range name {
		if r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return fmt.Sprintf("%q", name)
		}
	}
	return name
}
