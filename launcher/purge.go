package launcher

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// purged are the entries of Dirs.Data that are whisk's, whatever the layout. The number goes last: until then a purge that
// was cut short leaves a folder of whisk's.
func purged() []string {
	return []string{"sandboxes", "volumes", "networks", "storage", "storage-run", "said-one-id", "said-linger", "layout"}
}

// Purge removes all data of whisk's: sandboxes, volumes, images, egress logs. It must be called inside whisk's user
// namespace, since files may belong to sub-ids, while no keeper runs. It follows no link below Dirs.Data, and
// returns what it found there that is not whisk's, and left.
func Purge(d Dirs) (strange []string, err error) {
	entries, err := os.ReadDir(d.Data)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("remove whisk's data: %w", err)
	}
	for _, e := range entries {
		if !slices.Contains(purged(), e.Name()) && !strings.HasPrefix(e.Name(), ".tmp-") && !strings.HasPrefix(e.Name(), ".load-") {
			strange = append(strange, filepath.Join(d.Data, e.Name()))
			continue
		}
		if e.Name() != "layout" {
			if err := removeTree(filepath.Join(d.Data, e.Name())); err != nil {
				return strange, err
			}
		}
	}
	if err := os.Remove(d.layoutFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return strange, fmt.Errorf("remove whisk's data: %w", err)
	}
	return strange, nil
}

// HeldNetworks are the networks that a keeper holds.
func HeldNetworks(d Dirs) ([]string, error) {
	entries, err := os.ReadDir(d.Networks())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	var held []string
	for _, e := range entries {
		if Held(d, e.Name()) {
			held = append(held, e.Name())
		}
	}
	return held, nil
}
