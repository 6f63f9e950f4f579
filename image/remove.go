package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.podman.io/storage"
)

// RemoveOptions says how far Remove may go.
type RemoveOptions struct {
	// Force removes an image that has several names. From one that is in use it takes the names and leaves the
	// layers, which the sandboxes' file systems lie over.
	Force bool
	// InUse names the sandboxes made from an image; nil: none are.
	InUse func(imageID string) []string
}

// Remove does what docker rmi does. A name takes that name off, and with the last one the image goes; an id takes the
// image with all its names, if there is at most one or with Force. Layers that no image has are deleted.
//
// It returns the names taken off and the ids of images deleted (digits only). An image that is in use is an
// *InUseError, unless other names remain on it; one that is not there a *NotFoundError.
func (s *Store) Remove(ctx context.Context, name string, opts RemoveOptions) (untagged, deleted []string, err error) {
	defer s.catch(&err)
	if err := s.check(); err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	img, err := s.find(name)
	if err != nil {
		return nil, nil, err
	}
	byName := ""
	if ref, err := ParseReference(name); err == nil && slices.Contains(img.Names, ref.stored()) {
		byName = ref.stored()
	}
	if byName != "" && tags(img.Names) > 1 && isTag(byName) || byName != "" && len(img.Names) > 1 && !isTag(byName) {
		if err := s.store.RemoveNames(img.ID, []string{byName}); err != nil {
			return nil, nil, storeError(s.opts.GraphRoot, "writing", err)
		}
		return []string{byName}, nil, nil
	}
	if byName == "" && tags(img.Names) > 1 && !opts.Force {
		return nil, nil, fmt.Errorf("image %q has several names: %s; remove them one by one, or use force", name, strings.Join(img.Names, ", "))
	}
	if opts.InUse != nil {
		if by := opts.InUse(img.ID); len(by) > 0 {
			if !opts.Force {
				return nil, nil, &InUseError{Name: name, By: by}
			}
			err := s.store.RemoveNames(img.ID, img.Names)
			return slices.Sorted(slices.Values(img.Names)), nil, storeError(s.opts.GraphRoot, "writing", err)
		}
	}
	if _, err := s.store.DeleteImage(img.ID, true); err != nil {
		if errors.Is(err, storage.ErrImageUnknown) || errors.Is(err, storage.ErrNotAnImage) {
			return nil, nil, &NotFoundError{Name: name} // somebody else was faster
		}
		return nil, nil, storeError(s.opts.GraphRoot, "writing", err)
	}
	return slices.Sorted(slices.Values(img.Names)), []string{img.ID}, storeError(s.opts.GraphRoot, "writing", s.prune())
}

func isTag(name string) bool { return !strings.Contains(name, "@") }

// tags counts the names a person gave; those with a digest came with a pull and go with the last tag.
func tags(names []string) int {
	n := 0
	for _, name := range names {
		if isTag(name) {
			n++
		}
	}
	return n
}
