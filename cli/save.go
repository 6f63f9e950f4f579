package cli

import (
	"context"

	"github.com/whisk-sandbox/whisk/image"
)

type saveCmd struct {
	inStore
	Output string   `short:"o" placeholder:"PATH" help:"File or folder to write; it must not be there."`
	Format string   `enum:"docker-archive,oci-archive,oci-dir" default:"docker-archive" placeholder:"FORMAT" help:"docker-archive, oci-archive or oci-dir."`
	Images []string `arg:"" name:"image" placeholder:"IMAGE…" help:"Names or ids of images."`
}

// Help is what kong shows below the flags.
func (*saveCmd) Help() string {
	return `Examples:
  whisk save -o nginx.tar nginx
  whisk save -o images/ --format oci-dir nginx postgres`
}

func (s *saveCmd) runInside(ctx context.Context, c *call) error {
	if s.Output == "" {
		return usage("whisk save -o PATH IMAGE", "a path is missing")
	}
	return c.withStore(func(store *image.Store) error { return store.Save(ctx, s.Output, s.Format, s.Images) })
}
