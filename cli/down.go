package cli

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/keeper"
)

type downCmd struct {
	Volumes bool   `short:"v" help:"Remove the project's volumes, anonymous ones among them, and egress log, too."`
	Time    string `short:"t" placeholder:"SECONDS" help:"How long to wait before killing; without it what each app was given, or 10."`
	File    string `short:"f" placeholder:"FILE" help:"The project's whisk.toml; without it the nearest from here upwards."`
}

// Help is what kong shows below the flags.
func (*downCmd) Help() string {
	return `Volumes and the egress log are kept unless -v is given; volumes marked external
always are. The next up mounts the volumes that have names again, and makes
anonymous ones anew; those of before are in whisk volume ls.

Examples:
  whisk down
  whisk down -v -t 1`
}

func (d *downCmd) run(ctx context.Context, c *call) error {
	timeout, err := stopTimeout("--time", d.Time)
	if err != nil {
		return err
	}
	p, err := c.loadProject(d.File)
	if err != nil {
		return err
	}
	if err := c.reconcile(ctx); err != nil {
		return err
	}
	return c.down(ctx, p, timeout, downOptions{volumes: d.Volumes, anonymous: d.Volumes})
}

// downOptions say what goes besides the sandboxes.
type downOptions struct {
	volumes   bool // the project's named volumes and its egress log
	anonymous bool // the sandboxes' anonymous volumes
}

// down ends and forgets all sandboxes of a project. It returns when its network is gone, so that the next up finds
// the published ports free.
func (c *call) down(ctx context.Context, p *config.Project, timeout *time.Duration, o downOptions) error {
	client, err := keeper.Dial(ctx, c.dirs, p.Name)
	if err == nil {
		defer client.Close()
		err = c.downRunning(ctx, client, p, timeout, o.anonymous)
	}
	if err != nil && !errors.Is(err, keeper.ErrNoKeeper) {
		return err
	}
	records, err := projectRecords(c.dirs, p.Name)
	if err != nil {
		return err
	}
	if err := c.remove(ctx, records, o.anonymous); err != nil {
		return err
	}
	for _, r := range records {
		c.warnf("%s: removed", r.App.Name)
	}
	if !o.volumes {
		return nil
	}
	if !launcher.Held(c.dirs, p.Name) {
		if err := launcher.RemoveEgressLog(c.dirs, p.Name); err != nil {
			return err
		}
	}
	var own []string
	all, err := launcher.Volumes(c.dirs)
	if err != nil {
		return err
	}
	for _, v := range all {
		if slices.Contains(ownVolumes(p), v.Name) && !othersVolume(p.Name, v) {
			own = append(own, v.Name)
		}
	}
	if len(own) == 0 {
		return nil
	}
	if err := c.stage(ctx, nil, append([]string{"volume", "rm", "--force", "--"}, own...)); err != nil {
		return err
	}
	for _, name := range own {
		c.warnf("volume %s: removed", name)
	}
	return nil
}

// downRunning ends what a keeper looks after: the project's sandboxes, and not those that joined its network.
func (c *call) downRunning(ctx context.Context, client *keeper.Client, p *config.Project, timeout *time.Duration, anonymous bool) error {
	records, err := projectRecords(c.dirs, p.Name)
	if err != nil || len(records) == 0 {
		return err
	}
	names := map[string]string{}
	d := keeper.DownRequest{Timeout: timeout, Remove: true, Volumes: anonymous}
	for _, r := range records {
		d.IDs = append(d.IDs, r.ID)
		names[r.ID] = r.App.Name
	}
	err = client.Down(ctx, d, func(ev keeper.Event) {
		name := ev.App
		if name == "" {
			name = names[ev.ID]
		}
		switch ev.Type {
		case keeper.EventStopped:
			c.warnf("%s: stopped", name)
		case keeper.EventRemoved:
			c.warnf("%s: removed", name)
		default:
			c.warnings(ev)
		}
	})
	if err != nil && !errors.Is(err, keeper.ErrNoKeeper) {
		return err
	}
	return client.WaitGone(ctx)
}
