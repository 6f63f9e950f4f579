package cli

import (
	"context"
	"errors"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/keeper"
)

// selection is the sandboxes that a command works on.
type selection struct {
	File      string   `placeholder:"FILE" help:"The project's whisk.toml."`
	Sandboxes []string `arg:"" optional:"" name:"sandbox" placeholder:"SANDBOX…" help:"Ids, unique beginnings of ids, names, or apps (web, shop/web)."`
}

func (s *selection) find(c *call) ([]*launcher.Record, error) {
	if len(s.Sandboxes) == 0 {
		return nil, usage("whisk ps -a", "a sandbox is missing")
	}
	return c.records(s.Sandboxes, s.File)
}

type stopCmd struct {
	Time string `short:"t" placeholder:"SECONDS" help:"How long to wait before killing, -1 for ever; without it what the sandbox was given, or 10."`
	selection
}

// Help is what kong shows below the flags.
func (*stopCmd) Help() string {
	return `Examples:
  whisk stop web
  whisk stop -t 1 4f2a shop/db`
}

func (s *stopCmd) run(ctx context.Context, c *call) error {
	timeout, err := stopTimeout("--time", s.Time)
	if err != nil {
		return err
	}
	records, err := s.find(c)
	if err != nil {
		return err
	}
	ended := atOnce(records, func(r *launcher.Record) error {
		return c.end(ctx, r, keeper.DownRequest{Timeout: timeout})
	})
	return c.inOrder(s.Sandboxes, func(i int) error { return <-ended[i] })
}

// end asks a sandbox's keeper to end it. A sandbox that does not run has ended already.
func (c *call) end(ctx context.Context, r *launcher.Record, d keeper.DownRequest) error {
	client, err := keeper.Dial(ctx, c.dirs, r.KeeperName())
	if errors.Is(err, keeper.ErrNoKeeper) {
		return nil
	}
	if err != nil {
		return err
	}
	defer client.Close()
	d.IDs = []string{r.ID}
	err = client.Down(ctx, d, c.warnings)
	if errors.Is(err, keeper.ErrNoKeeper) {
		return nil // it has left in between, with all its sandboxes
	}
	if e, ok := errors.AsType[*launcher.Error](err); ok && e.Kind == launcher.KindNotFound {
		return nil
	}
	return err
}
