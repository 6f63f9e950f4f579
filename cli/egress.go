package cli

import (
	"errors"
	"slices"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
)

type egressCmd struct {
	Log   egressLogCmd   `cmd:"" help:"Show what sandboxes have reached outside, and what they were denied."`
	Learn egressLearnCmd `cmd:"" help:"Print the egress list that would have allowed what a project reached."`
}

// Help is what kong shows below the flags.
func (*egressCmd) Help() string {
	return `Every flow that leaves a network is written down: a TCP connection, the datagrams
between two addresses, a ping.

Examples:
  whisk egress log -f --denied
  whisk egress learn`
}

// flowSource is one egress log, and what of it is asked for.
type flowSource struct {
	network string // whose keeper writes it
	file    string
	label   string   // what its sandboxes are told by among others'; empty: their apps' names
	apps    []string // empty: all
	ids     []string // of the sandboxes that were named
}

// flowSources are the logs of the sandboxes that words name, or the one of the project. Apps of the project that file
// describes need not have a sandbox any more, as down leaves their flows to be read; and a network can be named.
func (c *call) flowSources(words []string, file string) ([]*flowSource, error) {
	p, err := c.loadProject(file)
	if err != nil && (file != "" || len(words) == 0) {
		if errors.Is(err, config.ErrNoProject) && file == "" {
			return nil, usage("whisk egress log SANDBOX, or go to a folder with a whisk.toml", "a sandbox is missing")
		}
		return nil, err
	}
	if len(words) == 0 {
		return []*flowSource{networkFlows(c.dirs, p.Name)}, nil
	}
	project := ""
	if err == nil {
		project = p.Name
	}
	var sources []*flowSource
	for _, word := range words {
		s, err := c.flowSource(word, project)
		if e, ok := errors.AsType[*launcher.Error](err); ok && e.Kind == launcher.KindNotFound {
			switch {
			case hasApp(p, word):
				s, err = networkFlows(c.dirs, p.Name), nil
				s.apps = []string{word}
			case config.ValidName(word) == nil && launcher.HasEgressLog(c.dirs, word):
				s, err = networkFlows(c.dirs, word), nil
			}
		}
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(sources, func(other *flowSource) bool { return other.file == s.file })
		if i < 0 {
			sources = append(sources, s)
			continue
		}
		if other := sources[i]; len(s.apps) == 0 || len(other.apps) == 0 {
			other.apps, other.ids = nil, nil // one of the words is the whole network
		} else {
			other.apps, other.ids = append(other.apps, s.apps...), append(other.ids, s.ids...)
		}
	}
	return sources, nil
}

func networkFlows(d launcher.Dirs, network string) *flowSource {
	return &flowSource{network: network, file: d.EgressLog(network)}
}

func hasApp(p *config.Project, name string) bool {
	return p != nil && slices.ContainsFunc(p.Apps, func(a config.App) bool { return a.Name == name })
}

// flowSource is the log of one sandbox.
func (c *call) flowSource(word, project string) (*flowSource, error) {
	r, err := launcher.Find(c.dirs, word, project)
	if err != nil {
		return nil, err
	}
	if r.Network == "none" {
		return nil, usage("", "sandbox %q has no network, so nothing leaves it", displayName(r))
	}
	s := &flowSource{network: r.KeeperName(), file: r.EgressLog(c.dirs), apps: []string{r.NetworkName()}, ids: []string{r.ID}}
	if r.Private() {
		s.label = displayName(r)
	}
	return s, nil
}
