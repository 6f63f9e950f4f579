package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/keeper"
)

type rmCmd struct {
	Force   bool `short:"f" help:"Kill sandboxes that run."`
	Volumes bool `short:"v" help:"Remove their anonymous volumes, too, which stay otherwise."`
	selection
}

// Help is what kong shows below the flags.
func (*rmCmd) Help() string {
	return `Anonymous volumes are those without a name, which -v /PATH and images ask for.
Without -v they stay, and whisk volume ls shows them; a sandbox that was run with
--rm takes them along.

Examples:
  whisk rm web
  whisk rm -f -v $(whisk ps -aq)`
}

func (r *rmCmd) run(ctx context.Context, c *call) error {
	records, err := r.find(c)
	if err != nil {
		return err
	}
	if !r.Force {
		for _, rec := range records {
			if rec.State == launcher.Running {
				return usage("whisk rm -f "+displayName(rec), "sandbox %q is running", displayName(rec))
			}
		}
	}
	if err := c.remove(ctx, records, r.Volumes); err != nil {
		return err
	}
	for _, word := range r.Sandboxes {
		if _, err := fmt.Fprintln(c.out, word); err != nil {
			return err
		}
	}
	return nil
}

// runInside is the stage that run starts for sandboxes which no keeper looks after.
func (r *rmCmd) runInside(_ context.Context, c *call) error {
	for _, id := range r.Sandboxes {
		err := launcher.RemoveSandbox(c.dirs, id, r.Volumes)
		if errors.Is(err, launcher.ErrSandboxHeld) {
			return &launcher.Error{Message: fmt.Sprintf("sandbox %s has just been started, or removed", id), Hint: "whisk ps -a", Exit: launcher.ExitWhisk}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// remove forgets sandboxes. Those whose network has a keeper are its affair, as only it writes their records; the
// rest goes in one stage, as files in them belong to sub-ids.
func (c *call) remove(ctx context.Context, records []*launcher.Record, volumes bool) error {
	args := []string{"rm"}
	if volumes {
		args = append(args, "--volumes")
	}
	args = append(args, "--")
	flags := len(args)
	done := atOnce(records, func(r *launcher.Record) error {
		if !launcher.Held(c.dirs, r.KeeperName()) {
			return nil
		}
		return c.end(ctx, r, keeper.DownRequest{Timeout: new(time.Duration), Remove: true, Volumes: volumes})
	})
	var first error
	for i, r := range records {
		if err := <-done[i]; err != nil && first == nil {
			first = err
		}
		if _, err := launcher.ReadRecord(c.dirs, r.ID); !errors.Is(err, fs.ErrNotExist) {
			args = append(args, r.ID)
		}
	}
	if first != nil || len(args) == flags {
		return first
	}
	return c.stage(ctx, c.out, args)
}
