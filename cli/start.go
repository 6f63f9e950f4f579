package cli

import (
	"context"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/keeper"
)

type startCmd struct {
	selection
}

// Help is what kong shows below the flags.
func (*startCmd) Help() string {
	return `A sandbox starts as it was made, with the files it has written. It runs in the
background; its output goes to its log.

Example:
  whisk start web && whisk logs -f web`
}

func (s *startCmd) run(ctx context.Context, c *call) error {
	records, err := s.find(c)
	if err != nil {
		return err
	}
	return c.inOrder(s.Sandboxes, func(i int) error { return c.start(ctx, records[i]) })
}

func (c *call) start(ctx context.Context, r *launcher.Record) error {
	m, err := c.userns()
	if err != nil {
		return err
	}
	client, err := keeper.Open(ctx, c.dirs, r.KeeperName(), m, r.NetworkPolicy())
	if err != nil {
		return err
	}
	defer client.Close()
	return client.StartSandbox(ctx, r.ID, c.warnings)
}

type restartCmd struct {
	Time string `short:"t" placeholder:"SECONDS" help:"How long to wait before killing, -1 for ever; without it what the sandbox was given, or 10."`
	selection
}

// Help is what kong shows below the flags.
func (*restartCmd) Help() string {
	return `Example:
  whisk restart -t 1 web`
}

func (s *restartCmd) run(ctx context.Context, c *call) error {
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
	return c.inOrder(s.Sandboxes, func(i int) error {
		if err := <-ended[i]; err != nil {
			return err
		}
		return c.start(ctx, records[i])
	})
}
