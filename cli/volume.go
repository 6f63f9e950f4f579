package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
)

type volumeCmd struct {
	Ls      volumeLsCmd      `cmd:"" help:"List volumes."`
	Create  volumeCreateCmd  `cmd:"" help:"Make an empty volume."`
	Rm      volumeRmCmd      `cmd:"" help:"Remove volumes and what is in them."`
	Inspect volumeInspectCmd `cmd:"" help:"Show all that whisk knows of volumes, as JSON."`
}

// Help is what kong shows below the flags.
func (*volumeCmd) Help() string {
	return `A volume is a folder that outlives sandboxes. It is made when a sandbox first
mounts it, and filled with what the image has in its place.

Example:
  whisk run -v pgdata:/var/lib/postgresql/data postgres`
}

type volumeLsCmd struct {
	Filter []string `short:"f" sep:"none" placeholder:"KEY=VALUE" help:"List only those that match: label=KEY[=VALUE] or name=REGEXP."`
	Quiet  bool     `short:"q" help:"Print names only."`
	listFlags
}

// Help is what kong shows below the flags.
func (*volumeLsCmd) Help() string {
	return `Examples:
  whisk volume ls
  whisk volume ls --filter label=keep`
}

func (v *volumeLsCmd) run(_ context.Context, c *call) error {
	f, err := parseFilters(v.Filter, "label", "name")
	if err != nil {
		return err
	}
	volumes, err := launcher.Volumes(c.dirs)
	if err != nil {
		return err
	}
	volumes = slices.DeleteFunc(volumes, func(v launcher.Volume) bool { return !f.labels(v.Labels) || !f.name(v.Name) })
	if v.json() {
		if volumes == nil {
			volumes = []launcher.Volume{}
		}
		return writeJSON(c.out, volumes)
	}
	if v.Quiet {
		for _, vol := range volumes {
			if _, err := fmt.Fprintln(c.out, vol.Name); err != nil {
				return err
			}
		}
		return nil
	}
	return volumeTable(volumes, time.Now()).write(c.out)
}

func volumeTable(volumes []launcher.Volume, now time.Time) *table {
	t := &table{head: []string{"NAME", "AGE", "SANDBOX"}}
	for _, v := range volumes {
		t.add(v.Name, age(now.Sub(v.CreatedAt)), v.Anonymous)
	}
	return t
}

type volumeCreateCmd struct {
	Label []string `short:"l" sep:"none" placeholder:"KEY[=VALUE]" help:"Attach a word of your own."`
	Name  string   `arg:"" placeholder:"NAME" help:"Name of the volume."`
}

// Help is what kong shows below the flags.
func (*volumeCreateCmd) Help() string { return "Example:\n  whisk volume create pgdata" }

func (v *volumeCreateCmd) run(_ context.Context, c *call) error {
	var labels map[string]string
	for _, l := range v.Label {
		key, value, err := config.ParseLabel(l)
		if err != nil {
			return flagFault("--label", err)
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[key] = value
	}
	if err := c.dirs.Make(); err != nil {
		return err
	}
	vol, err := launcher.CreateVolume(c.dirs, v.Name, labels)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.out, vol.Name)
	return err
}

type volumeRmCmd struct {
	inStore
	Force   bool     `short:"f" help:"A volume that is not there is no error."`
	Volumes []string `arg:"" name:"volume" placeholder:"VOLUME…" help:"Names of volumes."`
}

// Help is what kong shows below the flags.
func (*volumeRmCmd) Help() string {
	return `A volume that a sandbox mounts, even one that has ended, is not removed.

Example:
  whisk volume rm pgdata`
}

func (v *volumeRmCmd) runInside(_ context.Context, c *call) error {
	var first error
	for _, name := range v.Volumes {
		err := launcher.RemoveVolume(c.dirs, name)
		if err != nil && v.Force && launcher.AsError(err).Kind == launcher.KindNotFound {
			continue
		}
		if err != nil {
			if first != nil {
				c.fault(first)
			}
			first = err
			continue
		}
		if _, err := fmt.Fprintln(c.out, name); err != nil {
			return err
		}
	}
	return first
}

type volumeInspectCmd struct {
	Volumes []string `arg:"" name:"volume" placeholder:"VOLUME…" help:"Names of volumes."`
}

// Help is what kong shows below the flags.
func (*volumeInspectCmd) Help() string { return "Example:\n  whisk volume inspect pgdata" }

func (v *volumeInspectCmd) run(_ context.Context, c *call) error {
	volumes := make([]*launcher.Volume, 0, len(v.Volumes))
	for _, name := range v.Volumes {
		vol, err := launcher.InspectVolume(c.dirs, name)
		if err != nil {
			return err
		}
		volumes = append(volumes, vol)
	}
	return writeJSON(c.out, volumes)
}
