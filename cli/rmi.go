package cli

import (
	"context"
	"fmt"

	"github.com/whisk-sandbox/whisk/image"
	"github.com/whisk-sandbox/whisk/launcher"
)

type rmiCmd struct {
	inStore
	Force  bool     `short:"f" help:"Remove an image with all its names, and one that stopped sandboxes use."`
	Images []string `arg:"" name:"image" placeholder:"IMAGE…" help:"Names or ids of images."`
}

// Help is what kong shows below the flags.
func (*rmiCmd) Help() string {
	return `An image goes with its last name.

Example:
  whisk rmi nginx:1.27`
}

func (r *rmiCmd) runInside(ctx context.Context, c *call) error {
	records, err := launcher.Records(c.dirs)
	if err != nil {
		return err
	}
	return c.withStore(func(store *image.Store) error {
		var first error
		for _, name := range r.Images {
			untagged, deleted, err := store.Remove(ctx, name, image.RemoveOptions{Force: r.Force, InUse: func(id string) []string {
				return users(records, id, r.Force)
			}})
			if err != nil {
				if first != nil {
					c.fault(first)
				}
				first = err
				continue
			}
			for _, u := range untagged {
				if _, err := fmt.Fprintln(c.out, "untagged:", u); err != nil {
					return err
				}
			}
			for _, d := range deleted {
				if _, err := fmt.Fprintln(c.out, "deleted:", d); err != nil {
					return err
				}
			}
		}
		return first
	})
}

// users are the sandboxes that keep an image from being removed: those that run always do.
func users(records []launcher.Record, id string, force bool) []string {
	var names []string
	for _, r := range records {
		if r.ImageID == id && (r.State == launcher.Running || !force) {
			names = append(names, displayName(&r))
		}
	}
	return names
}
