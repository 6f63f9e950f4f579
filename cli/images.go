package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/whisk-sandbox/whisk/image"
)

type imagesCmd struct {
	inStore
	Quiet   bool `short:"q" help:"Print ids only."`
	NoTrunc bool `help:"Do not shorten ids."`
	listFlags
}

// Help is what kong shows below the flags.
func (*imagesCmd) Help() string {
	return `Examples:
  whisk images
  whisk images --json | jq '.[].names'`
}

// imageRow is one image in whisk images --json.
type imageRow struct {
	ID       string    `json:"id"`
	Names    []string  `json:"names"`
	Digest   string    `json:"digest"`
	Created  time.Time `json:"created"`
	Size     int64     `json:"size"` // bytes of its layers, unpacked
	Platform string    `json:"platform"`
	Layers   int       `json:"layers"`
}

// shortID is how much of an image's id tables show.
const shortID = 12

func (i *imagesCmd) runInside(ctx context.Context, c *call) error {
	return c.withStore(func(store *image.Store) error {
		images, err := store.List(ctx)
		if err != nil {
			return err
		}
		switch {
		case i.Quiet:
			for _, img := range images {
				if _, err := fmt.Fprintln(c.out, i.id(img.ID)); err != nil {
					return err
				}
			}
			return nil
		case i.json():
			return writeJSON(c.out, imageRows(images))
		}
		return i.table(images, time.Now()).write(c.out)
	})
}

func (i *imagesCmd) id(id string) string {
	if i.NoTrunc {
		return id
	}
	return id[:min(shortID, len(id))]
}

func imageRows(images []image.Image) []imageRow {
	rows := make([]imageRow, 0, len(images))
	for _, img := range images {
		rows = append(rows, imageRow{
			ID: img.ID, Names: append([]string{}, img.Names...), Digest: img.Digest.String(),
			Created: img.Created, Size: img.Size, Platform: img.Platform, Layers: len(img.Layers),
		})
	}
	return rows
}

// table shows a line for each name of an image.
func (i *imagesCmd) table(images []image.Image, now time.Time) *table {
	t := &table{head: []string{"NAME", "ID", "AGE", "SIZE", "PLATFORM"}}
	for _, img := range images {
		names := slices.Sorted(slices.Values(img.Names))
		if len(names) == 0 {
			names = []string{"(none)"}
		}
		for _, name := range names {
			if ref, err := image.ParseReference(name); err == nil {
				name = ref.Familiar()
			}
			created := ""
			if !img.Created.IsZero() && img.Created.Unix() > 0 { // builds that can be repeated say 1970
				created = age(now.Sub(img.Created))
			}
			t.add(name, i.id(img.ID), created, size(img.Size), img.Platform)
		}
	}
	return t
}
