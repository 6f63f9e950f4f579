package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/storage"
)

// shortID is how many digits of an id people see.
const shortID = 12

// record is what whisk keeps in the metadata of a stored image: what a start needs, without reading its layers' records.
type record struct {
	Size   int64         `json:"size"`   // bytes of all layers' tar streams
	Digest digest.Digest `json:"digest"` // of the manifest for the platform
}

// Lookup finds an image by reference ("nginx", "nginx@sha256:…"), by id, by a unique prefix of one (at least one digit;
// "sha256:" before it is allowed), or by digest. A reference wins over an id. It is on the path of every start: it reads
// the image's record, its config and two small files of its top layer.
//
// An image that is not there is a *NotFoundError; a prefix of several ids an *AmbiguousError.
func (s *Store) Lookup(ctx context.Context, name string) (_ *Image, err error) {
	defer s.catch(&err)
	if err := s.check(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	found, err := s.find(name)
	if err != nil {
		return nil, err
	}
	img, err := s.describe(found)
	if errors.Is(err, errIncomplete) {
		return nil, &NotFoundError{Name: name}
	}
	if err != nil {
		return nil, err
	}
	return img, s.mendOwners(ctx, img.Layers)
}

// errIncomplete marks the record of an image whose pull was killed between the record and its config.
var errIncomplete = errors.New("the image's record is not complete")

// find resolves what a person typed to a stored image.
func (s *Store) find(name string) (*storage.Image, error) {
	ref, refErr := ParseReference(name)
	if refErr == nil {
		img, err := s.named(ref.stored())
		if img != nil || err != nil {
			return img, err
		}
		if ref.Digest() != "" {
			if img, err := s.byDigest(ref.Digest()); img != nil || err != nil {
				return img, err
			}
		}
	}
	if d := digest.Digest(name); d.Validate() == nil {
		if img, err := s.byDigest(d); img != nil || err != nil {
			return img, err
		}
	}
	prefix := strings.TrimPrefix(name, "sha256:")
	if len(prefix) <= 64 && isHex(prefix) {
		if img, err := s.byPrefix(prefix); img != nil || err != nil {
			return img, err
		}
	}
	if refErr != nil && !isHex(prefix) {
		return nil, refErr
	}
	return nil, &NotFoundError{Name: name}
}

// named is the image of that exact name or id, or nil.
func (s *Store) named(name string) (*storage.Image, error) {
	img, err := s.store.Image(name)
	if errors.Is(err, storage.ErrImageUnknown) {
		return nil, nil
	}
	if err != nil {
		return nil, storeError(s.opts.GraphRoot, "reading", err)
	}
	// The library also takes a prefix of an id here; a name it must be.
	if img.ID != name && !slices.Contains(img.Names, name) {
		return nil, nil
	}
	return img, nil
}

// byDigest is the image with a manifest or an index of that digest, or nil. Of the several images of an index, that
// for this machine comes first.
func (s *Store) byDigest(d digest.Digest) (*storage.Image, error) {
	images, err := s.store.ImagesByDigest(d)
	if err != nil {
		return nil, storeError(s.opts.GraphRoot, "reading", err)
	}
	if len(images) > 1 {
		for _, img := range images {
			if s.isFor(img, hostPlatform()) {
				return img, nil
			}
		}
	}
	if len(images) == 0 {
		return nil, nil
	}
	return images[0], nil
}

func (s *Store) byPrefix(prefix string) (*storage.Image, error) {
	images, err := s.store.Images()
	if err != nil {
		return nil, storeError(s.opts.GraphRoot, "reading", err)
	}
	var hits []*storage.Image
	for i := range images {
		if strings.HasPrefix(images[i].ID, prefix) {
			hits = append(hits, &images[i])
		}
	}
	switch len(hits) {
	case 0:
		return nil, nil
	case 1:
		return hits[0], nil
	}
	e := &AmbiguousError{Prefix: prefix}
	for _, img := range hits {
		e.IDs = append(e.IDs, img.ID[:min(len(img.ID), shortID)])
	}
	slices.Sort(e.IDs)
	return nil, e
}

// isFor tells whether an image's config names a platform on which one wanted for another runs.
func (s *Store) isFor(img *storage.Image, want ocispec.Platform) bool {
	raw, err := s.config(img)
	if err != nil {
		return false
	}
	var p ocispec.Platform
	return json.Unmarshal(raw, &p) == nil && matches(want, p)
}

// configFile is an image's config, with what Docker adds to the specification's.
type configFile struct {
	ocispec.Image
	Config struct {
		ocispec.ImageConfig
		Healthcheck *Healthcheck
	} `json:"config"`
}

// describe reads what the store keeps of an image.
func (s *Store) describe(img *storage.Image) (*Image, error) {
	raw, err := s.config(img)
	if err != nil {
		return nil, err
	}
	var config configFile
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, storeError(s.opts.GraphRoot, "reading", fmt.Errorf("config of image %s: %w", img.ID[:shortID], err))
	}
	out := &Image{
		ID: img.ID, Names: slices.Sorted(slices.Values(img.Names)), Digest: img.Digest,
		Platform: showPlatform(config.Platform), Config: config.Config.ImageConfig, Healthcheck: config.Config.Healthcheck,
		Base: s.overlayDir(),
	}
	if config.Created != nil {
		out.Created = *config.Created
	}
	var rec record
	if json.Unmarshal([]byte(img.Metadata), &rec) == nil {
		out.Size, out.Digest = rec.Size, cmp.Or(rec.Digest, out.Digest)
	}
	out.Layers, err = s.lowerDirs(img.TopLayer)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// config is the image's config, byte by byte as it was pulled.
func (s *Store) config(img *storage.Image) ([]byte, error) {
	if !isHexID(img.ID) {
		return nil, errIncomplete // not one of whisk's
	}
	key := "sha256:" + img.ID
	if !slices.Contains(img.BigDataNames, key) {
		return nil, errIncomplete
	}
	raw, err := s.store.ImageBigData(img.ID, key)
	if errors.Is(err, storage.ErrImageUnknown) || errors.Is(err, fs.ErrNotExist) {
		return nil, errIncomplete
	}
	if err != nil {
		return nil, storeError(s.opts.GraphRoot, "reading", err)
	}
	return raw, nil
}

// lowerDirs lists the folders of a layer and those below it as the overlay driver named them: in overlay/ID, "link" is
// the layer's own short name in overlay/l, and "lower" the list of those below, topmost first. The record of each
// layer would say it, too, but a start need not read them all.
func (s *Store) lowerDirs(top string) ([]string, error) {
	dir := filepath.Join(s.overlayDir(), top)
	link, err := os.ReadFile(filepath.Join(dir, "link"))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", errDamaged, err)
		}
		return nil, storeError(s.opts.GraphRoot, "reading", err)
	}
	layers := []string{"l/" + strings.TrimSpace(string(link))}
	lower, err := os.ReadFile(filepath.Join(dir, "lower"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // the lowest layer has none
		return nil, storeError(s.opts.GraphRoot, "reading", err)
	}
	if len(lower) > 0 {
		layers = append(layers, strings.Split(strings.TrimSpace(string(lower)), ":")...)
	}
	if err := s.linked(layers); errors.Is(err, fs.ErrNotExist) {
		err = errors.Join(s.relink(), s.linked(layers))
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", errDamaged, err)
		}
		if err != nil {
			return nil, storeError(s.opts.GraphRoot, "reading", err)
		}
	} else if err != nil {
		return nil, storeError(s.opts.GraphRoot, "reading", err)
	}
	return layers, nil
}

// linked checks that the folders of layers are there.
func (s *Store) linked(layers []string) error {
	for _, l := range layers {
		if _, err := os.Stat(filepath.Join(s.overlayDir(), l)); err != nil {
			return err
		}
	}
	return nil
}

// relink makes the short names of layers that are missing in overlay/l. A process that is killed while the library writes
// a layer's file "link" leaves that empty, and the library, which then removes the layer, takes its short name to be the
// folder of all of them (v1.64.2, drivers/overlay, removeCommon).
func (s *Store) relink() error {
	if err := os.MkdirAll(filepath.Join(s.overlayDir(), "l"), 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.overlayDir())
	if err != nil {
		return err
	}
	var all error
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(s.overlayDir(), e.Name(), "link"))
		name := strings.TrimSpace(string(b))
		if err != nil || !isHexID(e.Name()) || !filepath.IsLocal(name) || strings.Contains(name, "/") {
			continue // no layer, or one that was never finished
		}
		err = os.Symlink(filepath.Join("..", e.Name(), "diff"), filepath.Join(s.overlayDir(), "l", name))
		if !errors.Is(err, fs.ErrExist) {
			all = errors.Join(all, err)
		}
	}
	return all
}
