package cli

import (
	"context"

	"github.com/whisk-sandbox/whisk/image"
)

type tagCmd struct {
	inStore
	Image string `arg:"" placeholder:"IMAGE" help:"Name or id of an image."`
	Name  string `arg:"" placeholder:"NAME" help:"The further name; another image loses it."`
}

// Help is what kong shows below the flags.
func (*tagCmd) Help() string {
	return `Example:
  whisk tag nginx:1.27 registry.example.org/team/nginx:1`
}

func (t *tagCmd) runInside(ctx context.Context, c *call) error {
	return c.withStore(func(store *image.Store) error { return store.Tag(ctx, t.Image, t.Name) })
}
