package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Damage is an image that the store has a record of and not all files.
type Damage struct {
	ID    string   `json:"id"`
	Names []string `json:"names,omitempty"`
	What  string   `json:"what"` // the first thing that is not there
}

// Health counts the images and looks whether each has what Lookup and Save need of it: its config, and of each layer the files,
// the short name and tar-split's account. It changes nothing, and reads no file's contents but the store's own lists.
func (s *Store) Health(ctx context.Context) (images int, damaged []Damage, err error) {
	defer s.catch(&err)
	if err := s.check(); err != nil {
		return 0, nil, err
	}
	stored, err := s.store.Images()
	if err != nil {
		return 0, nil, storeError(s.opts.GraphRoot, "reading", err)
	}
	for i := range stored {
		if err := ctx.Err(); err != nil {
			return 0, nil, err
		}
		_, layers, err := s.contents(stored[i].ID)
		if errors.Is(err, errIncomplete) { // a pull was killed, and List passes it over
			continue
		}
		images++
		for j, l := range layers {
			if err == nil {
				err = s.whole(l.id, j == 0)
			}
		}
		if err != nil {
			names := slices.Sorted(slices.Values(stored[i].Names))
			damaged = append(damaged, Damage{ID: stored[i].ID, Names: slices.DeleteFunc(names, func(n string) bool { return !isTag(n) }), What: err.Error()})
		}
	}
	return images, damaged, nil
}

// whole checks that a layer's files are there.
func (s *Store) whole(id string, lowest bool) error {
	dir := filepath.Join(s.overlayDir(), id)
	need := []string{filepath.Join(dir, "diff"), filepath.Join(dir, "link"), filepath.Join(s.opts.GraphRoot, driverName+"-layers", id+".tar-split.gz")}
	if !lowest {
		need = append(need, filepath.Join(dir, "lower"))
	}
	for _, path := range need {
		st, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("layer %.12s has lost %s", id, strings.TrimPrefix(filepath.Base(path), id+"."))
		case err != nil:
			return fmt.Errorf("layer %.12s: %w", id, err)
		case st.Mode().IsRegular() && st.Size() == 0:
			return fmt.Errorf("layer %.12s has an empty %s", id, strings.TrimPrefix(filepath.Base(path), id+"."))
		}
	}
	return nil
}
