package image

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"
	gzip "github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
	"golang.org/x/sync/errgroup"
)

// Bounds on what strangers may send.
const (
	maxManifest = 4 << 20 // as registries themselves bound manifests (distribution)
	maxConfig   = 8 << 20
	maxLayers   = 128 // overlayfs itself takes 500, its options a page
	downloads   = 4   // layers under way at once: enough to fill a line, few enough for any registry
)

// source is one image somewhere else.
type source struct {
	image v1.Image
	// index is the document that led to the image, if any: its digest names the image, too.
	index []byte
	names []string // full references to give it
}

// add brings an image into the store. Its record comes last, so that an image is whole or not there.
func (s *Store) add(ctx context.Context, src source, p Progress) (*Image, error) {
	manifest, err := src.image.RawManifest()
	if err != nil {
		return nil, fmt.Errorf("reading manifest: %w", err)
	}
	rawConfig, err := src.image.RawConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	if len(manifest) > maxManifest || len(rawConfig) > maxConfig {
		return nil, &Error{Message: fmt.Sprintf("manifest (%d bytes) or configuration (%d bytes) is larger than whisk accepts", len(manifest), len(rawConfig))}
	}
	var cfg imagespec.Image
	if err := json.Unmarshal(rawConfig, &cfg); err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	layers, err := src.image.Layers()
	if err != nil {
		return nil, fmt.Errorf("reading manifest: %w", err)
	}
	diffs := cfg.RootFS.DiffIDs
	if len(layers) != len(diffs) || len(layers) == 0 || len(layers) > maxLayers {
		return nil, &Error{Message: fmt.Sprintf("the manifest names %d layers and the configuration %d (at most %d)", len(layers), len(diffs), maxLayers)}
	}
	for _, d := range diffs {
		if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
			return nil, &Error{Message: fmt.Sprintf("layer digest %q of the configuration is not sha256", d)}
		}
	}
	top, err := s.layers(ctx, layers, diffs, oneAtATime(p))
	if err != nil {
		return nil, err
	}
	return s.record(src, top, manifest, rawConfig, &cfg)
}

// record writes the image's record and gives it its names.
func (s *Store) record(src source, top string, manifest, config []byte, cfg *imagespec.Image) (*Image, error) {
	id := digest.FromBytes(config).Encoded()
	d := digest.FromBytes(manifest)
	options := &storage.ImageOptions{Digest: d, BigData: []storage.ImageBigDataOption{
		{Key: configKey(id), Data: config, Digest: digest.FromBytes(config)},
		{Key: manifestKey, Data: manifest, Digest: d},
	}}
	if cfg.Created != nil {
		options.CreationDate = *cfg.Created
	}
	if src.index != nil {
		of := digest.FromBytes(src.index)
		options.BigData = append(options.BigData, storage.ImageBigDataOption{Key: manifestKey + "-" + of.String(), Data: src.index, Digest: of})
	}
	_, err := s.s.CreateImage(id, nil, top, "", options)
	if errors.Is(err, storage.ErrDuplicateID) {
		err = nil
		for _, b := range options.BigData {
			if werr := s.s.SetImageBigData(id, b.Key, b.Data, func([]byte) (digest.Digest, error) { return b.Digest, nil }); werr != nil {
				err = werr
			}
		}
	}
	if err == nil && len(src.names) > 0 {
		err = s.s.AddNames(id, src.names)
	}
	if err != nil {
		return nil, storeError("recording image "+short(id), s.root, err)
	}
	img, err := s.s.Image(id)
	if err != nil {
		return nil, storeError("recording image "+short(id), s.root, err)
	}
	return s.describe(img)
}

// layers brings the layers that are missing and returns the topmost one's id. They are fetched side by side and
// unpacked in order, each while it arrives.
func (s *Store) layers(ctx context.Context, layers []v1.Layer, diffs []digest.Digest, p Progress) (string, error) {
	ids := chain(diffs)
	missing := len(ids)
	for i := len(ids) - 1; i >= 0; i-- {
		if s.s.Exists(ids[i]) {
			break
		}
		missing = i
	}
	group, ctx := errgroup.WithContext(ctx)
	spools := make([]*spool, len(ids))
	defer func() {
		for _, sp := range spools {
			if sp != nil {
				sp.close()
			}
		}
	}()
	for i, l := range layers {
		name, total := describeLayer(l)
		if i < missing {
			p(Step{Layer: name, State: Kept, Total: total})
			continue
		}
		sp, err := newSpool(s.root)
		if err != nil {
			return "", storeError("fetching layer "+name, s.root, err)
		}
		spools[i] = sp
	}
	fetchers, fctx := errgroup.WithContext(ctx)
	fetchers.SetLimit(downloads)
	group.Go(func() error {
		for i := missing; i < len(layers); i++ {
			fetchers.Go(func() error { return fetch(fctx, layers[i], spools[i], p) })
		}
		return fetchers.Wait()
	})
	group.Go(func() error {
		// A cancelled pull must not wait for bytes that never come.
		stop := context.AfterFunc(ctx, func() {
			for i := missing; i < len(spools); i++ {
				spools[i].end(context.Cause(ctx))
			}
		})
		defer stop()
		for i := missing; i < len(layers); i++ {
			parent := ""
			if i > 0 {
				parent = ids[i-1]
			}
			if err := s.unpack(ids[i], parent, layers[i], diffs[i], spools[i], p); err != nil {
				return err
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return "", err
	}
	return ids[len(ids)-1], nil
}

// chain gives the layers' ids: each depends on the layer and all below it (OCI image specification, ChainID).
func chain(diffs []digest.Digest) []string {
	ids := make([]string, len(diffs))
	for i, d := range diffs {
		if i == 0 {
			ids[i] = d.Encoded()
			continue
		}
		ids[i] = digest.FromString("sha256:" + ids[i-1] + " " + d.String()).Encoded()
	}
	return ids
}

func describeLayer(l v1.Layer) (name string, total int64) {
	if d, err := l.Digest(); err == nil {
		name = short(d.Hex)
	}
	total, _ = l.Size()
	return name, total
}

// fetch brings one blob and checks its digest.
func fetch(ctx context.Context, l v1.Layer, to *spool, p Progress) error {
	name, total := describeLayer(l)
	want, err := l.Digest()
	if err != nil {
		to.end(err)
		return fmt.Errorf("fetching layer %s: %w", name, err)
	}
	in, err := l.Compressed()
	if err != nil {
		to.end(err)
		return fmt.Errorf("fetching layer %s: %w", name, err)
	}
	defer in.Close()
	stop := context.AfterFunc(ctx, func() { in.Close() })
	defer stop()
	p(Step{Layer: name, State: Downloading, Total: total})
	sum := sha256.New()
	var got int64
	checked := &checkedReader{r: io.TeeReader(in, sum), end: func() error {
		if total > 0 && got < total {
			return &Error{Message: fmt.Sprintf("layer %s was cut off after %s of %s", name, size(got), size(total)), Remedy: "try again", Err: io.ErrUnexpectedEOF}
		}
		if hex.EncodeToString(sum.Sum(nil)) != want.Hex {
			return &Error{Message: fmt.Sprintf("layer %s is not what its digest says: it was damaged or forged on the way", name), Remedy: "try again; if it stays so, tell the image's maker"}
		}
		return nil
	}}
	err = to.fill(checked, func(n int64) {
		got = n
		p(Step{Layer: name, State: Downloading, Bytes: n, Total: total})
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var told *Error
	if errors.As(err, &told) {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &Error{Message: fmt.Sprintf("layer %s was cut off after %s of %s", name, size(got), size(total)), Remedy: "try again", Err: err}
	}
	if err != nil {
		return fmt.Errorf("fetching layer %s: %w", name, err)
	}
	return nil
}

// checkedReader calls end at the end of r, and fails where it does.
type checkedReader struct {
	r   io.Reader
	end func() error
}

// Read implements io.Reader.
func (c *checkedReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if err == io.EOF && n == 0 {
		if bad := c.end(); bad != nil {
			return 0, bad
		}
	}
	if err == io.EOF && n > 0 {
		err = nil // asked again, r says so again
	}
	return n, err
}

// unpack puts one layer into the store while its blob arrives, and takes it out again if its content is not what
// the configuration says.
func (s *Store) unpack(id, parent string, l v1.Layer, want digest.Digest, from *spool, p Progress) error {
	name, total := describeLayer(l)
	plain, err := decompress(from.reader())
	if err != nil {
		return fmt.Errorf("unpacking layer %s: %w", name, err)
	}
	defer plain.Close()
	p(Step{Layer: name, State: Unpacking, Bytes: total, Total: total})
	sum := sha256.New()
	options := &storage.LayerOptions{UncompressedDigest: want}
	if d, err := l.Digest(); err == nil {
		options.OriginalDigest = digest.Digest(d.String())
		options.OriginalSize = &total
	}
	var forged error
	verified := &checkedReader{r: io.TeeReader(plain, sum), end: func() error {
		if hex.EncodeToString(sum.Sum(nil)) != want.Encoded() {
			forged = &Error{Message: fmt.Sprintf("layer %s unpacks to something else than the configuration says (%s)", name, want), Remedy: "tell the image's maker"}
		}
		return forged
	}}
	_, _, err = s.s.PutLayer(id, parent, nil, "", false, options, verified)
	if err == nil {
		// The store may stop at the end of the archive; what follows counts for the digest.
		if _, err = io.Copy(io.Discard, verified); err != nil {
			_ = s.s.DeleteLayer(id)
		}
	}
	switch {
	case err == nil, errors.Is(err, storage.ErrDuplicateID): // another pull was quicker
		p(Step{Layer: name, State: Done, Bytes: total, Total: total})
		return nil
	}
	// The store runs the extraction in a process of its own and may word our error anew.
	if bad := cmp.Or(forged, from.failure()); bad != nil {
		return bad
	}
	return storeError("unpacking layer "+name, s.root, err)
}

// decompress recognises gzip and zstd by their first bytes; anything else is taken for a plain archive.
func decompress(r io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(r, 256<<10)
	magic, err := in.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch archive.DetectCompression(magic) {
	case archive.Gzip:
		return gzip.NewReader(in)
	case archive.Zstd:
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxMemory(512<<20))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(in), nil
}

// uniqueNames drops names given twice.
func uniqueNames(names []string) []string {
	out := slices.DeleteFunc(slices.Clone(names), func(s string) bool { return strings.TrimSpace(s) == "" })
	slices.Sort(out)
	return slices.Compact(out)
}
