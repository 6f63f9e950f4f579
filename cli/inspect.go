package cli

import (
	"context"
	"errors"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/whisk-sandbox/whisk/image"
	"github.com/whisk-sandbox/whisk/launcher"
)

type inspectCmd struct {
	File  string   `placeholder:"FILE" help:"The project's whisk.toml."`
	Names []string `arg:"" optional:"" name:"name" placeholder:"NAME…" help:"Sandboxes, by id, name or app (web, shop/web); images, by reference or id."`
}

// Help is what kong shows below the flags.
func (*inspectCmd) Help() string {
	return `A name that no sandbox has is that of an image.

Examples:
  whisk inspect web | jq -r '.[0].ipv4'
  whisk inspect nginx:1.27 | jq '.[0].config'`
}

// inspectedImage is one image in whisk inspect.
type inspectedImage struct {
	imageRow
	Config      ocispec.ImageConfig `json:"config"`
	Healthcheck *image.Healthcheck  `json:"healthcheck,omitempty"`
}

func (i *inspectCmd) run(ctx context.Context, c *call) error {
	if len(i.Names) == 0 {
		return usage("whisk ps -a, whisk images", "a sandbox or an image is missing")
	}
	found := make([]any, len(i.Names))
	project, err := c.projectName(i.File)
	if err != nil {
		return err
	}
	for n, name := range i.Names {
		r, err := launcher.Find(c.dirs, name, project)
		if err != nil && launcher.AsError(err).Kind == launcher.KindNotFound {
			return c.stage(ctx, c.out, c.args) // an image's name, whose store is read inside
		}
		if err != nil {
			return err
		}
		found[n] = r
	}
	return writeJSON(c.out, found)
}

// runInside is run where the names may be those of images.
func (i *inspectCmd) runInside(ctx context.Context, c *call) error {
	project, err := c.projectName(i.File)
	if err != nil {
		return err
	}
	found := make([]any, len(i.Names))
	err = c.withStore(func(store *image.Store) error {
		for n, name := range i.Names {
			r, err := launcher.Find(c.dirs, name, project)
			if err == nil {
				found[n] = r
				continue
			}
			if launcher.AsError(err).Kind != launcher.KindNotFound {
				return err
			}
			img, err := store.Lookup(ctx, name)
			if _, none := errors.AsType[*image.NotFoundError](err); none {
				return usage("whisk ps -a, whisk images", "no sandbox and no image %q", name)
			}
			if err != nil {
				return err
			}
			found[n] = inspectedImage{imageRow: imageRows([]image.Image{*img})[0], Config: img.Config, Healthcheck: img.Healthcheck}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return writeJSON(c.out, found)
}
