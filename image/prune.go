package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.podman.io/storage"
	"golang.org/x/sys/unix"
)

// ingestLock is held by many who put images into the store, or by one who takes away layers that no image has: one that is
// being put there has its layers before it has its record.
func (s *Store) ingestLock() string { return filepath.Join(s.opts.GraphRoot, "ingest.lock") }

// shareIngest waits for a prune to end, which takes as long as deleting some folders.
func (s *Store) shareIngest(ctx context.Context) (*os.File, error) {
	if err := os.MkdirAll(s.opts.GraphRoot, 0o700); err != nil {
		return nil, err
	}
	for {
		f, err := s.tryIngest(unix.LOCK_SH)
		if f != nil || err != nil {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(lockPoll):
		}
	}
}

// tryIngest is nil without an error when another holds the lock. The file is never removed.
func (s *Store) tryIngest(how int) (*os.File, error) {
	f, err := os.OpenFile(s.ingestLock(), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking: %w", err)
	}
	err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return nil, nil
	}
	return nil, fmt.Errorf("locking %s: %w", s.ingestLock(), err)
}

// prune deletes the layers that no image has: those of pulls that were cancelled, killed, or superseded before they had
// all. While another process puts an image into the store it does nothing; who comes last prunes.
func (s *Store) prune() error {
	lock, err := s.tryIngest(unix.LOCK_EX)
	if lock == nil {
		return err
	}
	defer lock.Close()
	layers, err := s.store.Layers()
	if err != nil {
		return err
	}
	images, err := s.store.Images()
	if err != nil {
		return err
	}
	var all error
	for _, id := range unreferenced(layers, images) {
		// The library looks again, under the store's own lock: an image that has come since keeps its layers.
		err := s.store.DeleteLayer(id)
		if errors.Is(err, storage.ErrLayerUnknown) || errors.Is(err, storage.ErrNotALayer) || errors.Is(err, storage.ErrLayerHasChildren) || errors.Is(err, storage.ErrLayerUsedByImage) || errors.Is(err, storage.ErrLayerUsedByContainer) {
			continue
		}
		all = errors.Join(all, err)
	}
	return all
}

// unreferenced are the layers that no image's stack has, each before the one it lies on.
func unreferenced(layers []storage.Layer, images []storage.Image) []string {
	parent := make(map[string]string, len(layers))
	for _, l := range layers {
		parent[l.ID] = l.Parent
	}
	kept := map[string]bool{}
	keep := func(id string) {
		for ; id != "" && !kept[id]; id = parent[id] {
			kept[id] = true
		}
	}
	for _, img := range images {
		keep(img.TopLayer)
		for _, id := range img.MappedTopLayers {
			keep(id)
		}
	}
	children := map[string]int{}
	for id, p := range parent {
		if !kept[id] {
			children[p]++
		}
	}
	var out []string
	for _, l := range layers { // each is reached from the one above it, or is the topmost
		for id := l.ID; id != "" && !kept[id] && children[id] == 0; id = parent[id] {
			out = append(out, id)
			kept[id] = true
			children[parent[id]]--
		}
	}
	return out
}
