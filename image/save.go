package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	gcrname "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
)

// Formats that Save writes.
const (
	DockerArchive = "docker-archive"
	OCIArchive    = "oci-archive"
	OCIDir        = "oci-dir"
)

// Save writes images to an archive or a layout folder, which must not be there. What was written of one that fails
// is removed. Layers come out byte for byte as they went in, uncompressed.
func (s *Store) Save(ctx context.Context, path, format string, names []string) error {
	if _, err := os.Lstat(path); err == nil {
		return &Error{Message: fmt.Sprintf("saving to %s: it exists", path), Remedy: "remove it first, or choose another name"}
	}
	dir := filepath.Dir(path)
	tmp, err := os.MkdirTemp(dir, ".whisk-save-")
	if err != nil {
		return fmt.Errorf("saving to %s: %w", path, err)
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("saving to %s: %w", path, err)
	}
	out := filepath.Join(tmp, "out")
	switch format {
	case DockerArchive:
		err = s.saveDocker(ctx, out, names)
	case OCIDir:
		err = s.saveLayout(ctx, out, names)
	case OCIArchive:
		folder := filepath.Join(tmp, "layout")
		if err = s.saveLayout(ctx, folder, names); err == nil {
			err = tarFolder(ctx, folder, out)
		}
	default:
		return &Error{Message: fmt.Sprintf("no such format %q", format), Remedy: "choose docker-archive, oci-archive or oci-dir"}
	}
	if err == nil {
		err = os.Rename(out, path)
	}
	if err != nil {
		var told *Error
		var missing *NotFoundError
		if errors.As(err, &told) || errors.As(err, &missing) {
			return err
		}
		return fmt.Errorf("saving to %s: %w", path, err)
	}
	return nil
}

// saved is an image on its way out: its names come with it.
type saved struct {
	names []string
	image v1.Image
}

// toSave finds the images; one that is named twice is written once.
func (s *Store) toSave(ctx context.Context, names []string) ([]saved, error) {
	var out []saved
	at := map[string]int{}
	for _, name := range names {
		img, err := s.Lookup(ctx, name)
		if err != nil {
			return nil, err
		}
		given := ""
		if ref, err := ParseReference(name); err == nil && slices.Contains(img.Names, ref.String()) {
			given = ref.String()
		}
		if i, ok := at[img.ID]; ok {
			out[i].names = uniqueNames(append(out[i].names, given))
			continue
		}
		image, err := partial.UncompressedToImage(&core{ctx: ctx, s: s, img: img})
		if err != nil {
			return nil, err
		}
		at[img.ID] = len(out)
		out = append(out, saved{uniqueNames([]string{given}), image})
	}
	return out, nil
}

func (s *Store) saveDocker(ctx context.Context, path string, names []string) error {
	images, err := s.toSave(ctx, names)
	if err != nil {
		return err
	}
	refs := map[gcrname.Reference]v1.Image{}
	for _, i := range images {
		for _, n := range i.names {
			tag, err := gcrname.NewTag(n, gcrname.WeakValidation)
			if err != nil {
				return err
			}
			refs[tag] = i.image
		}
		if len(i.names) == 0 {
			d, err := i.image.Digest()
			if err != nil {
				return err
			}
			ref, err := gcrname.NewDigest("whisk/unnamed@"+d.String(), gcrname.WeakValidation)
			if err != nil {
				return err
			}
			refs[ref] = i.image
		}
	}
	return tarball.MultiRefWriteToFile(path, refs)
}

func (s *Store) saveLayout(ctx context.Context, dir string, names []string) error {
	images, err := s.toSave(ctx, names)
	if err != nil {
		return err
	}
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	for _, i := range images {
		img := mutate.MediaType(i.image, types.OCIManifestSchema1)
		img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
		if len(i.names) == 0 {
			if err := p.AppendImage(img); err != nil {
				return err
			}
		}
		for _, n := range i.names {
			if err := p.AppendImage(img, layout.WithAnnotations(map[string]string{imagespec.AnnotationRefName: n, containerdName: n})); err != nil {
				return err
			}
		}
	}
	return nil
}

// tarFolder writes a folder's files into an archive.
func tarFolder(ctx context.Context, dir, path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	defer func() {
		err = errors.Join(err, w.Close(), f.Close())
	}()
	return filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil || rel == "." {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: rel, Mode: 0o644, Typeflag: tar.TypeReg, Size: info.Size()}
		if e.IsDir() {
			h.Name, h.Mode, h.Typeflag, h.Size = rel+"/", 0o755, tar.TypeDir, 0
		}
		if err := w.WriteHeader(h); err != nil || e.IsDir() {
			return err
		}
		in, err := os.Open(name)
		if err != nil {
			return err
		}
		defer in.Close()
		_, err = io.Copy(w, in)
		return err
	})
}

// core is an image of the store as go-containerregistry wants to see it.
type core struct {
	ctx context.Context
	s   *Store
	img *Image
}

// RawConfigFile implements partial.UncompressedImageCore.
func (c *core) RawConfigFile() ([]byte, error) {
	return c.s.s.ImageBigData(c.img.ID, configKey(c.img.ID))
}

// MediaType implements partial.UncompressedImageCore.
func (c *core) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// LayerByDiffID implements partial.UncompressedImageCore.
func (c *core) LayerByDiffID(h v1.Hash) (partial.UncompressedLayer, error) {
	top, err := c.s.s.Image(c.img.ID)
	if err != nil {
		return nil, err
	}
	for id := top.TopLayer; id != ""; {
		l, err := c.s.s.Layer(id)
		if err != nil {
			return nil, err
		}
		if l.UncompressedDigest.Encoded() == h.Hex {
			return &layerCore{c: c, layer: l}, nil
		}
		id = l.Parent
	}
	return nil, fmt.Errorf("image %s has no layer %s", short(c.img.ID), h)
}

type layerCore struct {
	c     *core
	layer *storage.Layer
}

// DiffID implements partial.UncompressedLayer.
func (l *layerCore) DiffID() (v1.Hash, error) {
	return v1.NewHash(l.layer.UncompressedDigest.String())
}

// MediaType implements partial.UncompressedLayer.
func (l *layerCore) MediaType() (types.MediaType, error) { return types.OCILayer, nil }

// Uncompressed implements partial.UncompressedLayer.
func (l *layerCore) Uncompressed() (io.ReadCloser, error) {
	if err := l.c.ctx.Err(); err != nil {
		return nil, err
	}
	plain := archive.Uncompressed
	return l.c.s.s.Diff(l.layer.Parent, l.layer.ID, &storage.DiffOptions{Compression: &plain})
}
