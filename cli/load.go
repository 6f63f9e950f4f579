package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/whisk-sandbox/whisk/image"
	"github.com/whisk-sandbox/whisk/launcher"
)

type loadCmd struct {
	inStore
	Input    string `short:"i" placeholder:"PATH" help:"Docker archive, OCI archive or OCI layout folder; - for standard input."`
	Ref      string `placeholder:"REF" help:"Load only the image of this name."`
	Tag      string `short:"t" placeholder:"NAME" help:"Name to give the image."`
	Platform string `placeholder:"OS/ARCH" help:"Platform to choose where there are several."`
	Quiet    bool   `short:"q" help:"Do not show progress."`
}

// Help is what kong shows below the flags.
func (*loadCmd) Help() string {
	return `Archives may be compressed with gzip or zstd. The images' ids are printed.

Examples:
  whisk load -i images/ --ref debian:trixie
  docker save app | whisk load -i -`
}

func (l *loadCmd) runInside(ctx context.Context, c *call) error {
	switch l.Input {
	case "":
		return usage("whisk load -i PATH", "a path is missing")
	case "-":
		file, err := spool(ctx, c.in, c.dirs.Data)
		if err != nil {
			return err
		}
		defer os.Remove(file)
		if err := l.load(ctx, c, file); err != nil {
			e := *launcher.AsError(err)
			e.Message = strings.ReplaceAll(e.Message, file, "standard input")
			return &e
		}
		return nil
	}
	return l.load(ctx, c, l.Input)
}

func (l *loadCmd) load(ctx context.Context, c *call, path string) error {
	return c.withStore(func(store *image.Store) error {
		images, err := store.Load(ctx, path, image.LoadOptions{Ref: l.Ref, Name: l.Tag, Platform: l.Platform, Progress: c.progress(l.Quiet)})
		if err != nil {
			return err
		}
		for _, img := range images {
			for _, name := range img.Names {
				if ref, err := image.ParseReference(name); err == nil && !l.Quiet {
					c.warnf("loaded %s", ref.Familiar())
				}
			}
		}
		return printIDs(c.out, images...)
	})
}

// spool keeps standard input in a file, as archives are read back and forth.
func spool(ctx context.Context, in io.Reader, dir string) (name string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("keep standard input: %w", err)
	}
	f, err := os.CreateTemp(dir, ".load-*")
	if err != nil {
		return "", fmt.Errorf("keep standard input: %w", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(f, in)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		done <- err
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		os.Remove(f.Name())
		return "", fmt.Errorf("keep standard input: %w", err)
	}
	return f.Name(), nil
}
