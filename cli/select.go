package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/keeper"
)

// loadProject reads the whisk.toml that file names or that is found from the working directory.
func (c *call) loadProject(file string) (*config.Project, error) {
	if file == "" {
		var err error
		if file, err = config.Find(c.dir); err != nil {
			return nil, err
		}
	}
	user, err := c.user()
	if err != nil {
		return nil, err
	}
	return config.Load(file, config.LoadOptions{LookupEnv: os.LookupEnv, Home: c.getenv("HOME"), Egress: user.Egress})
}

// projectName is the project whose apps a bare name means first: that of file, or of the working directory, if any.
// A whisk.toml nearby that is broken must not keep other sandboxes from being stopped; one that was asked for must
// be whole.
func (c *call) projectName(file string) (string, error) {
	p, err := c.loadProject(file)
	if err != nil {
		if file != "" {
			return "", err
		}
		return "", nil
	}
	return p.Name, nil
}

// records selects sandboxes by the words that were typed.
func (c *call) records(selectors []string, file string) ([]*launcher.Record, error) {
	project, err := c.projectName(file)
	if err != nil {
		return nil, err
	}
	var found []*launcher.Record
	for _, s := range selectors {
		r, err := launcher.Find(c.dirs, s, project)
		if err != nil {
			return nil, err
		}
		found = append(found, r)
	}
	return found, nil
}

// keeperOf connects to the keeper that looks after a running sandbox.
func (c *call) keeperOf(ctx context.Context, r *launcher.Record) (*keeper.Client, error) {
	notRunning := &launcher.Error{
		Message: fmt.Sprintf("sandbox %q is not running", displayName(r)), Hint: "whisk start " + displayName(r), Kind: launcher.KindNotFound, Exit: launcher.ExitWhisk,
	}
	if r.State != launcher.Running {
		return nil, notRunning
	}
	client, err := keeper.Dial(ctx, c.dirs, r.KeeperName())
	if errors.Is(err, keeper.ErrNoKeeper) {
		return nil, notRunning
	}
	return client, err
}

// displayName is how a sandbox is called in tables and messages: project/app, or its name.
func displayName(r *launcher.Record) string {
	if r.Project != "" {
		return r.Project + "/" + r.App.Name
	}
	return r.Name
}

// atOnce applies do to all side by side, as it may wait for apps to end. Each channel gives one result.
func atOnce(records []*launcher.Record, do func(*launcher.Record) error) []chan error {
	done := make([]chan error, len(records))
	for i, r := range records {
		done[i] = make(chan error, 1)
		go func() { done[i] <- do(r) }()
	}
	return done
}

// inOrder takes the results in the order of the words, and prints each that went well, as docker does. The first error
// is returned when the others have been taken.
func (c *call) inOrder(words []string, result func(i int) error) error {
	var first error
	for i := range words {
		if err := result(i); err != nil {
			if first == nil {
				first = err
			} else {
				c.fault(err)
			}
			continue
		}
		if _, err := fmt.Fprintln(c.out, words[i]); err != nil {
			return err
		}
	}
	return first
}
