package cli

import (
	"context"
	"fmt"

	"github.com/whisk-sandbox/whisk/demo"
)

type demoCmd struct {
	Detach bool   `short:"d" help:"Return when the demo is ready, and leave it in the background."`
	Port   uint16 `default:"8080" placeholder:"PORT" help:"Host port of the page; 0 picks a free one."`
	Stop   bool   `help:"Stop the demo and remove it; the visit counter's volume stays."`
}

// Help is what kong shows below the flags.
func (*demoCmd) Help() string {
	return `Two apps, web and store, run in sandboxes from whisk itself. The page shows what
each sees of its sandbox, and a visit counter that is kept in a volume.

Examples:
  whisk demo
  whisk demo -d && curl http://127.0.0.1:8080/
  whisk demo --stop`
}

// demoVolume is the volume of the visit counter, in the demo's project.
const demoVolume = "visits"

func (d *demoCmd) run(ctx context.Context, c *call) error {
	p := demo.Project(demoVolume, d.Port)
	if d.Stop {
		return c.down(ctx, p.Name, nil, downOptions{})
	}
	if err := c.up(ctx, p, &upCmd{Detach: d.Detach, Pull: pullNever}); err != nil || !d.Detach {
		return err
	}
	records, err := projectRecords(c.dirs, p.Name)
	if err != nil {
		return err
	}
	for _, r := range records {
		for _, pub := range r.Ports {
			if _, err := fmt.Fprintf(c.out, "http://%s/\n", hostPort(pub.HostIP, fmt.Sprint(pub.HostPort))); err != nil {
				return err
			}
		}
	}
	c.hint("whisk demo --stop")
	return nil
}
