package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/keeper"
)

type downCmd struct {
	Volumes bool   `short:"v" help:"Remove the project's volumes, anonymous ones among them, and egress log, too."`
	Time    string `short:"t" placeholder:"SECONDS" help:"How long to wait before killing; without it what each app was given, or 10."`
	File    string `short:"f" placeholder:"FILE" help:"The project's whisk.toml; without it the nearest from here upwards."`
	Project string `placeholder:"NAME" help:"The project of this name, by what runs and is kept of it: its whisk.toml is not read."`
}

// Help is what kong shows below the flags.
func (*downCmd) Help() string {
	return `Volumes and the egress log are kept unless -v is given; volumes marked external
always are. The next up mounts the volumes that have names again, and makes
anonymous ones anew; those of before are in whisk volume ls.

A project whose whisk.toml is gone, or no longer valid, goes by its name: that
of its folder, unless it gave itself another.

Examples:
  whisk down
  whisk down -v -t 1
  whisk down --project shop`
}

func (d *downCmd) run(ctx context.Context, c *call) error {
	timeout, err := stopTimeout("--time", d.Time)
	if err != nil {
		return err
	}
	if d.Project != "" {
		return c.downByName(ctx, d, timeout)
	}
	p, err := c.loadProject(d.File)
	if err != nil {
		return err
	}
	if err := c.reconcile(ctx); err != nil {
		return err
	}
	o := downOptions{anonymous: d.Volumes}
	if d.Volumes {
		own := ownVolumes(p)
		o.volumes = func(v launcher.Volume) bool { return slices.Contains(own, v.Name) && !othersVolume(p.Name, v) }
	}
	return c.down(ctx, p.Name, timeout, o)
}

// downByName ends a project that there is only what it has left behind of.
func (c *call) downByName(ctx context.Context, d *downCmd, timeout *time.Duration) error {
	if d.File != "" {
		return usage("leave one of them away", "--project and --file both name the project")
	}
	if err := c.reconcile(ctx); err != nil {
		return err
	}
	owned := func(v launcher.Volume) bool { return v.Labels[projectLabel] == d.Project }
	o := downOptions{anonymous: d.Volumes}
	if d.Volumes {
		o.volumes = owned
	}
	records, err := projectRecords(c.dirs, d.Project)
	if err != nil {
		return err
	}
	volumes, err := launcher.Volumes(c.dirs)
	if err != nil {
		return err
	}
	if len(records) == 0 && !(d.Volumes && slices.ContainsFunc(volumes, owned)) {
		return &launcher.Error{Message: fmt.Sprintf("nothing is here of a project %q", d.Project), Hint: "the projects: whisk ps -a", Kind: launcher.KindNotFound, Exit: launcher.ExitWhisk}
	}
	return c.down(ctx, d.Project, timeout, o)
}

// downOptions say what goes besides the sandboxes.
type downOptions struct {
	volumes   func(launcher.Volume) bool // those that do, and with them the egress log; nil: none, and that stays
	anonymous bool                       // the sandboxes' anonymous volumes
}

// down ends and forgets all sandboxes of a project. It returns when its network is gone, so that the next up finds
// the published ports free.
func (c *call) down(ctx context.Context, project string, timeout *time.Duration, o downOptions) error {
	client, err := keeper.Dial(ctx, c.dirs, project)
	if err == nil {
		defer client.Close()
		err = c.downRunning(ctx, client, project, timeout, o.anonymous)
	}
	if err != nil && !errors.Is(err, keeper.ErrNoKeeper) {
		return err
	}
	records, err := projectRecords(c.dirs, project)
	if err != nil {
		return err
	}
	if err := c.remove(ctx, records, o.anonymous); err != nil {
		return err
	}
	for _, r := range records {
		c.warnf("%s: removed", r.App.Name)
	}
	if o.volumes == nil {
		return nil
	}
	if !launcher.Held(c.dirs, project) {
		if err := launcher.RemoveEgressLog(c.dirs, project); err != nil {
			return err
		}
	}
	var own []string
	all, err := launcher.Volumes(c.dirs)
	if err != nil {
		return err
	}
	for _, v := range all {
		if o.volumes(v) {
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
func (c *call) downRunning(ctx context.Context, client *keeper.Client, project string, timeout *time.Duration, anonymous bool) error {
	records, err := projectRecords(c.dirs, project)
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
