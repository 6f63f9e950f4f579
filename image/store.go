package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/storage"
	"golang.org/x/sys/unix"
)

// Options say where the store is and how it treats owners.
type Options struct {
	GraphRoot, RunRoot string // absolute paths; made if they are not there
	// IgnoreChownErrors gives every file to the one id that is mapped.
	IgnoreChownErrors bool
}

// Store is the user's images. Several processes may use it at once; one Store is safe for several goroutines.
type Store struct {
	s    storage.Store
	root string
}

// Image is one image of the store.
type Image struct {
	ID       string        // hex sha256 of its configuration
	Names    []string      // full references
	Digest   digest.Digest // of its manifest
	Created  time.Time
	Size     int64 // bytes of its layers, unpacked
	Platform string
	Config   imagespec.ImageConfig
	// Base is a folder; Layers are the names in it to hand to overlayfs as lowerdir, topmost first. The names are
	// short because overlayfs takes at most a page of options.
	Base   string
	Layers []string
}

// NotFoundError says that the store has no such image.
type NotFoundError struct{ Name string }

// Error implements error.
func (e *NotFoundError) Error() string { return fmt.Sprintf("image %q is not here", e.Name) }

// Open opens the store, and makes it where there is none. The options are complete: storage.conf(5) is not read.
func Open(o Options) (*Store, error) {
	options := storage.StoreOptions{
		RunRoot: o.RunRoot, GraphRoot: o.GraphRoot, GraphDriverName: "overlay",
		GraphDriverOptions: []string{"overlay.mount_program=", "overlay.skip_mount_home=true"},
		DisableVolatile:    true,
	}
	if o.IgnoreChownErrors {
		options.GraphDriverOptions = append(options.GraphDriverOptions, "overlay.ignore_chown_errors=true")
	}
	s, err := storage.GetStore(options)
	if err != nil {
		return nil, storeError("opening the image store", o.GraphRoot, err)
	}
	return &Store{s: s, root: o.GraphRoot}, nil
}

// Close lets go of the store.
func (s *Store) Close() error {
	s.s.Free()
	return nil
}

// storeError words the faults of the store's file system.
func storeError(doing, where string, err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return &Error{Message: fmt.Sprintf("%s: no space left below %s", doing, where), Remedy: "free some: whisk images, whisk rmi; or set XDG_DATA_HOME to another disk", Err: err}
	case errors.Is(err, unix.EROFS):
		return &Error{Message: fmt.Sprintf("%s: the file system of %s is read-only", doing, where), Remedy: "set XDG_DATA_HOME to a folder that you may write to", Err: err}
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return &Error{Message: fmt.Sprintf("%s: %s is not yours to write", doing, where), Remedy: "set XDG_DATA_HOME to a folder that you may write to", Err: err}
	}
	return fmt.Errorf("%s %s: %w", doing, where, err)
}

// Error is a fault with a remedy.
type Error struct {
	Message string
	Remedy  string
	Err     error
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Hint is what to type.
func (e *Error) Hint() string { return e.Remedy }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// find selects an image: a reference, a full id or a unique prefix of one, or a digest.
func (s *Store) find(name string) (*storage.Image, error) {
	ref, refErr := ParseReference(name)
	if refErr == nil {
		if ref.digest == "" || ref.tag != "" {
			if img, err := s.s.Image(ref.withoutDigest().String()); err == nil {
				if ref.digest == "" || slices.Contains(img.Digests, ref.digest) || img.Digest == ref.digest {
					return img, nil
				}
				return nil, &NotFoundError{name}
			}
		}
		if ref.digest != "" {
			images, err := s.s.ImagesByDigest(ref.digest)
			if err == nil {
				for _, img := range images {
					for _, n := range img.Names {
						if strings.HasPrefix(n, ref.domain+"/"+ref.path) {
							return img, nil
						}
					}
				}
			}
			return nil, &NotFoundError{name}
		}
	}
	hex := strings.TrimPrefix(name, "sha256:")
	if len(hex) < 2 || len(hex) > 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		if refErr != nil {
			return nil, refErr
		}
		return nil, &NotFoundError{name}
	}
	images, err := s.s.Images()
	if err != nil {
		return nil, storeError("reading the image store", s.root, err)
	}
	var found []*storage.Image
	for i := range images {
		if strings.HasPrefix(images[i].ID, hex) {
			found = append(found, &images[i])
		}
	}
	switch len(found) {
	case 0:
		return nil, &NotFoundError{name}
	case 1:
		return found[0], nil
	}
	return nil, &Error{Message: fmt.Sprintf("image id %q could be any of %d images", name, len(found)), Remedy: "give more of the id: whisk images"}
}

func (r Reference) withoutDigest() Reference {
	r.digest = ""
	return r
}

// Lookup finds an image by reference, id, unique prefix of an id, or digest; a *NotFoundError when there is none.
// It is on the way of every start and reads a handful of small files.
func (s *Store) Lookup(_ context.Context, name string) (*Image, error) {
	img, err := s.find(name)
	if err != nil {
		return nil, err
	}
	return s.describe(img)
}

func (s *Store) describe(img *storage.Image) (*Image, error) {
	cfg, err := s.config(img)
	if err != nil {
		return nil, err
	}
	out := &Image{
		ID: img.ID, Names: img.Names, Digest: img.Digest, Created: img.Created, Config: cfg.Config,
		Platform: platformName(cfg.Platform), Base: filepath.Join(s.root, "overlay"),
	}
	if cfg.Created != nil {
		out.Created = *cfg.Created
	}
	for id := img.TopLayer; id != ""; {
		layer, err := s.s.Layer(id)
		if err != nil {
			return nil, fmt.Errorf("reading layer %s of image %s: %w", short(id), short(img.ID), err)
		}
		// The driver's own short link, as its `lower` files use it.
		link, err := os.ReadFile(filepath.Join(out.Base, id, "link"))
		if err != nil {
			return nil, fmt.Errorf("reading layer %s of image %s: %w", short(id), short(img.ID), err)
		}
		out.Layers = append(out.Layers, "l/"+strings.TrimSpace(string(link)))
		out.Size += max(layer.UncompressedSize, 0)
		id = layer.Parent
	}
	if len(out.Layers) == 0 {
		return nil, &Error{Message: fmt.Sprintf("image %q has no layers", cmp.Or(strings.Join(img.Names, " "), short(img.ID)))}
	}
	return out, nil
}

func (s *Store) config(img *storage.Image) (*imagespec.Image, error) {
	b, err := s.s.ImageBigData(img.ID, configKey(img.ID))
	if err != nil {
		return nil, fmt.Errorf("reading configuration of image %s: %w", short(img.ID), err)
	}
	var cfg imagespec.Image
	if err := json.Unmarshal(b, &cfg); err != nil {
		return nil, fmt.Errorf("reading configuration of image %s: %w", short(img.ID), err)
	}
	return &cfg, nil
}

// configKey and manifestKey are where containers' own tools keep these documents.
func configKey(imageID string) string { return "sha256:" + imageID }

const manifestKey = storage.ImageDigestBigDataKey

func short(id string) string { return id[:min(12, len(id))] }

func platformName(p imagespec.Platform) string {
	name := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	return name
}

// List gives all images, newest first.
func (s *Store) List(ctx context.Context) ([]Image, error) {
	images, err := s.s.Images()
	if err != nil {
		return nil, storeError("reading the image store", s.root, err)
	}
	var out []Image
	for i := range images {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		img, err := s.describe(&images[i])
		if err != nil {
			return nil, err
		}
		out = append(out, *img)
	}
	slices.SortFunc(out, func(a, b Image) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID)) })
	return out, nil
}

// Tag gives an image another name, which another image may lose.
func (s *Store) Tag(_ context.Context, src, dst string) error {
	img, err := s.find(src)
	if err != nil {
		return err
	}
	ref, err := ParseReference(dst)
	if err != nil {
		return err
	}
	if ref.digest != "" {
		return &ReferenceError{dst, "a digest cannot be given as a name"}
	}
	if err := s.s.AddNames(img.ID, []string{ref.String()}); err != nil {
		return storeError("naming image "+short(img.ID), s.root, err)
	}
	return nil
}

// RemoveOptions say what Remove may do.
type RemoveOptions struct {
	// Force removes an image with all its names, and one that stopped sandboxes use.
	Force bool
	// InUse names the sandboxes that use an image.
	InUse func(imageID string) []string
}

// Remove takes a name from an image, and the image itself with its last name. Given an id, it removes an image
// that has one name at most.
func (s *Store) Remove(_ context.Context, name string, o RemoveOptions) (untagged, deleted []string, err error) {
	img, err := s.find(name)
	if err != nil {
		return nil, nil, err
	}
	ref, refErr := ParseReference(name)
	byName := refErr == nil && slices.Contains(img.Names, ref.String())
	if byName && len(img.Names) > 1 && !o.Force {
		if err := s.s.RemoveNames(img.ID, []string{ref.String()}); err != nil {
			return nil, nil, storeError("removing name of image "+short(img.ID), s.root, err)
		}
		return []string{ref.String()}, nil, nil
	}
	if !byName && len(img.Names) > 1 && !o.Force {
		return nil, nil, &Error{Message: fmt.Sprintf("image %s has %d names: %s", short(img.ID), len(img.Names), strings.Join(img.Names, ", ")), Remedy: "remove them one by one, or all with: whisk rmi -f " + name}
	}
	if o.InUse != nil {
		if users := o.InUse(img.ID); len(users) > 0 {
			return nil, nil, &Error{Message: fmt.Sprintf("image %q is used by sandbox %s", name, strings.Join(users, ", ")), Remedy: "whisk rm " + strings.Join(users, " ")}
		}
	}
	layers, err := s.s.DeleteImage(img.ID, true)
	if err != nil {
		return nil, nil, storeError("removing image "+short(img.ID), s.root, err)
	}
	return img.Names, append([]string{"sha256:" + img.ID}, layers...), nil
}
