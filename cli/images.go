package cli

import (
	"context"

	"github.com/whisk-sandbox/whisk/image"
)

// inStore makes a command run in a stage inside the user namespace, with the same arguments.
type inStore struct{}

func (inStore) run(ctx context.Context, c *call) error { return c.stage(ctx, c.out, c.args) }

// openStore opens the image store; only inside the user namespace.
func (c *call) openStore() (*image.Store, error) {
	return image.Open(image.Options{GraphRoot: c.dirs.Storage(), RunRoot: c.dirs.StorageRun(), IgnoreChownErrors: c.single})
}

type pullCmd struct {
	inStore
}

func (p *pullCmd) runInside(ctx context.Context, c *call) error { return nil }

type imagesCmd struct{ inStore }

func (p *imagesCmd) runInside(ctx context.Context, c *call) error { return nil }

type rmiCmd struct{ inStore }

func (p *rmiCmd) runInside(ctx context.Context, c *call) error { return nil }

type tagCmd struct{ inStore }

func (p *tagCmd) runInside(ctx context.Context, c *call) error { return nil }

type loadCmd struct{ inStore }

func (p *loadCmd) runInside(ctx context.Context, c *call) error { return nil }

type saveCmd struct{ inStore }

func (p *saveCmd) runInside(ctx context.Context, c *call) error { return nil }
