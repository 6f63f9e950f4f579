package image

import (
	"context"
	"errors"
)

// Tag gives the image that src finds one more name. A name that another image had is taken from it. dst must have no
// digest: that is not for the user to say.
func (s *Store) Tag(ctx context.Context, src, dst string) (err error) {
	defer s.catch(&err)
	if err := s.check(); err != nil {
		return err
	}
	img, err := s.Lookup(ctx, src)
	if err != nil {
		return err
	}
	ref, err := ParseReference(dst)
	if err != nil {
		return err
	}
	if ref.Digest() != "" {
		return errors.New("tagging an image: the new name must not have a digest")
	}
	return storeError(s.opts.GraphRoot, "writing", s.store.AddNames(img.ID, []string{ref.String()}))
}
