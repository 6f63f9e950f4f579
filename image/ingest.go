package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/storage"
	"golang.org/x/sync/errgroup"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// parallelLayers is how many layers are fetched and unpacked at once: enough to hide a registry's latency, and few
// enough that it takes no offence (Docker's number is 3, podman's 6).
const parallelLayers = 4

// Bounds on what is read into memory. Registries enforce the first (distribution's default is 4 MiB); no image known
// comes near the second.
const (
	maxManifest = 4 << 20
	maxConfig   = 8 << 20
	maxLayers   = 500 // overlayfs's own limit on lower layers (fs/overlayfs/params.h)
)

// bundle is an image outside the store, with its manifest checked and its layers still to be read.
type bundle struct {
	manifest  []byte // OCI image manifest or Docker schema 2; empty: one is made when the layers are known
	index     []byte // the index that led to it, or empty
	config    []byte
	layers    []blob // from the bottom
	openLayer func(ctx context.Context, i int) (io.ReadCloser, error)
}

// blob is one layer as it is transferred.
type blob struct {
	digest digest.Digest // of the bytes transferred; empty: not known beforehand
	size   int64         // of them; -1: not known
	diffID digest.Digest // of the tar stream
}

// short names the layer to a person.
func (b blob) short() string {
	d := b.digest
	if d == "" {
		d = b.diffID
	}
	return d.Encoded()[:shortID]
}

// retries is how often an image is taken again from the start after another process removed a layer that it builds on.
const retries = 3

// ingest puts an image into the store, whole or not at all, and moves names to it.
func (s *Store) ingest(ctx context.Context, b *bundle, names []string, p Progress) (*Image, error) {
	if len(b.layers) > maxLayers {
		return nil, fmt.Errorf("the image has %d layers; overlayfs takes %d", len(b.layers), maxLayers)
	}
	p = oneAtATime(p)
	if err := s.sweep(); err != nil {
		return nil, storeError(s.opts.GraphRoot, "writing", err)
	}
	if err := s.put(ctx, b, names, p); err != nil {
		return nil, err
	}
	if err := s.prune(); err != nil {
		return nil, storeError(s.opts.GraphRoot, "writing", err)
	}
	return s.Lookup(ctx, b.id())
}

// put brings layers and record into the store while nobody prunes it.
func (s *Store) put(ctx context.Context, b *bundle, names []string, p Progress) error {
	lock, err := s.shareIngest(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return storeError(s.opts.GraphRoot, "writing", err)
	}
	defer lock.Close()
	for range retries {
		var top string
		var layers []layerInfo
		top, layers, err = s.ingestLayers(ctx, b, p)
		if err == nil {
			err = s.record(b, top, layers, names)
		}
		if err == nil || !errors.Is(err, storage.ErrLayerUnknown) {
			return err
		}
	}
	return err
}

// id is the image's: the digest of its config.
func (b *bundle) id() string { return digest.FromBytes(b.config).Encoded() }

// ingestLayers brings the layers into the store and returns the topmost's id and all their sizes.
func (s *Store) ingestLayers(ctx context.Context, b *bundle, p Progress) (top string, infos []layerInfo, err error) {
	group, ctx := errgroup.WithContext(ctx)
	places := make(chan struct{}, parallelLayers)
	ids := chainIDs(b.layers)
	ready := make([]chan *layer, len(ids))
	for i := range ready {
		ready[i] = make(chan *layer, 1)
	}
	infos = make([]layerInfo, len(ids))
	group.Go(func() error { // commits, parents first
		for i := range ids {
			var l *layer
			select {
			case l = <-ready[i]:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			parent := ""
			if i > 0 {
				parent = ids[i-1]
			}
			info, err := s.commit(l, parent)
			if err != nil {
				return err
			}
			infos[i] = info
		}
		return nil
	})
	group.Go(func() error { // starts them in order, so that a process that waits for another's layer never has what the other waits for
		for i := range ids {
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			group.Go(func() error {
				defer func() { <-places }()
				l, err := s.takeLayer(ctx, b, i, ids[i], p)
				if err != nil {
					return err
				}
				ready[i] <- l
				return nil
			})
		}
		return nil
	})
	err = group.Wait()
	for _, c := range ready { // what was unpacked and not committed
		select {
		case l := <-c:
			err = errors.Join(err, l.drop())
		default:
		}
	}
	if err != nil {
		return "", nil, err
	}
	if len(ids) == 0 {
		top, err = s.emptyLayer()
		return top, nil, err
	}
	return ids[len(ids)-1], infos, nil
}

// chainIDs are the names of layers in the store: that of the layer and all below it (image-spec config.md, "Layer
// ChainID"), so that equal stacks are kept once.
func chainIDs(layers []blob) []string {
	ids := make([]string, len(layers))
	var chain digest.Digest
	for i, l := range layers {
		if i == 0 {
			chain = l.diffID
		} else {
			chain = digest.FromString(chain.String() + " " + l.diffID.String())
		}
		ids[i] = chain.Encoded()
	}
	return ids
}

// record writes the image's record. The names come last: until then nobody finds it by one.
func (s *Store) record(b *bundle, top string, layers []layerInfo, names []string) error {
	if len(b.manifest) == 0 {
		var err error
		if b.manifest, err = plainManifest(b, layers); err != nil {
			return err
		}
	}
	rec := record{Digest: digest.FromBytes(b.manifest)}
	for _, l := range layers {
		rec.Size += l.size
	}
	metadata, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encoding image record: %w", err)
	}
	// The keys are those that skopeo and podman use: they can read this store.
	data := []storage.ImageBigDataOption{
		{Key: "sha256:" + b.id(), Data: b.config, Digest: digest.Digest("sha256:" + b.id())},
		{Key: manifestKey(rec.Digest), Data: b.manifest, Digest: rec.Digest},
		{Key: storage.ImageDigestBigDataKey, Data: b.manifest, Digest: rec.Digest},
	}
	if len(b.index) > 0 {
		d := digest.FromBytes(b.index)
		data = append(data, storage.ImageBigDataOption{Key: manifestKey(d), Data: b.index, Digest: d})
	}
	_, err = s.store.CreateImage(b.id(), nil, top, string(metadata), &storage.ImageOptions{Digest: rec.Digest, BigData: data})
	if errors.Is(err, storage.ErrDuplicateID) {
		err = s.complete(b.id(), data)
	}
	if err != nil {
		return storeError(s.opts.GraphRoot, "writing", err)
	}
	if len(names) > 0 {
		err = s.store.AddNames(b.id(), names)
	}
	return storeError(s.opts.GraphRoot, "writing", err)
}

// complete adds what the record of an image lacks: one of another registry's manifests, or all that a killed process
// had not written yet.
func (s *Store) complete(id string, data []storage.ImageBigDataOption) error {
	img, err := s.store.Image(id)
	if err != nil {
		return err
	}
	for _, item := range data {
		if slices.Contains(img.BigDataNames, item.Key) && (item.Key != storage.ImageDigestBigDataKey || img.Digest != "") {
			continue
		}
		if err := s.store.SetImageBigData(id, item.Key, item.Data, func([]byte) (digest.Digest, error) { return item.Digest, nil }); err != nil {
			return err
		}
	}
	return nil
}

func manifestKey(d digest.Digest) string {
	return storage.ImageDigestManifestBigDataNamePrefix + "-" + d.String()
}

// plainManifest is the manifest of an image that came without one, in an archive of docker save: its layers are the
// tar streams themselves.
func plainManifest(b *bundle, layers []layerInfo) ([]byte, error) {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	m.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(b.config), Size: int64(len(b.config))}
	m.Layers = []ocispec.Descriptor{}
	for i, l := range layers {
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: b.layers[i].diffID, Size: l.size})
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encoding manifest: %w", err)
	}
	return raw, nil
}

// emptyLayer is what an image without layers has: overlayfs needs one lower folder.
func (s *Store) emptyLayer() (string, error) {
	id := digest.FromString("").Encoded()
	_, err := s.store.CreateLayer(id, "", nil, "", false, nil)
	if errors.Is(err, storage.ErrDuplicateID) {
		err = nil
	}
	return id, storeError(s.opts.GraphRoot, "writing", err)
}

// pairLayers checks that a config names as many layers as its manifest, and pairs them.
func pairLayers(layers []blob, config []byte) error {
	var c configFile // all of it, so that none is kept that cannot be read again
	if err := json.Unmarshal(config, &c); err != nil && wall.Up("image checks") {
		return fmt.Errorf("reading image config: %w", err)
	}
	if len(c.RootFS.DiffIDs) != len(layers) {
		return fmt.Errorf("the image's config names %d layers and its manifest %d", len(c.RootFS.DiffIDs), len(layers))
	}
	for i, d := range c.RootFS.DiffIDs {
		if err := d.Validate(); err != nil || !strings.HasPrefix(d.String(), "sha256:") {
			return fmt.Errorf("the image's config names a layer %q, which is no sha256 digest", d)
		}
		layers[i].diffID = d
	}
	return nil
}
