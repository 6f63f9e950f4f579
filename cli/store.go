package cli

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/term"

	"github.com/whisk-sandbox/whisk/image"
)

// inStore makes a command run in a stage inside the user namespace, with the same arguments.
type inStore struct{}

func (inStore) run(ctx context.Context, c *call) error { return c.stage(ctx, c.out, c.args) }

// withStore opens the image store for do; only inside the user namespace.
func (c *call) withStore(do func(*image.Store) error) error {
	store, err := image.Open(image.Options{GraphRoot: c.dirs.Storage(), RunRoot: c.dirs.StorageRun(), IgnoreChownErrors: c.single})
	if err != nil {
		return err
	}
	err = do(store)
	if cerr := store.Close(); err == nil {
		err = cerr
	}
	return err
}

// progress shows bars on a terminal and lines elsewhere.
func (c *call) progress(quiet bool) image.Progress {
	fd := int(c.err.Fd())
	switch {
	case quiet:
		return nil
	case !term.IsTerminal(fd) || c.getenv("TERM") == "dumb":
		return image.Lines(c.err)
	}
	return image.Bars(c.err, func() int {
		if width, _, err := term.GetSize(fd); err == nil && width > 0 {
			return width
		}
		return helpWidth
	})
}

// printIDs prints the ids of images.
func printIDs(out *os.File, images ...*image.Image) error {
	for _, img := range images {
		if _, err := fmt.Fprintln(out, img.ID); err != nil {
			return err
		}
	}
	return nil
}
