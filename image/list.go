package image

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// List describes all images, the newest first, those of equal age by name. Images that a pull is still writing, or
// that it was killed in, are left out.
func (s *Store) List(ctx context.Context) (_ []Image, err error) {
	defer s.catch(&err)
	if err := s.check(); err != nil {
		return nil, err
	}
	stored, err := s.store.Images()
	if err != nil {
		return nil, storeError(s.opts.GraphRoot, "reading", err)
	}
	var images []Image
	for i := range stored {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		img, err := s.describe(&stored[i])
		if errors.Is(err, errIncomplete) {
			continue
		}
		if err != nil {
			return nil, err
		}
		images = append(images, *img)
	}
	slices.SortFunc(images, func(a, b Image) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		if c := strings.Compare(strings.Join(a.Names, " "), strings.Join(b.Names, " ")); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return images, nil
}
