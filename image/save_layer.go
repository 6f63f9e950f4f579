package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"
	"golang.org/x/sys/unix"
)

// storedLayer is a layer in the store, on its way out.
type storedLayer struct {
	id     string
	diffID digest.Digest
	size   int64 // of the tar stream
}

// contents are an image's config and, from the bottom, its layers.
func (s *Store) contents(id string) (config []byte, layers []storedLayer, err error) {
	img, err := s.store.Image(id)
	if err != nil {
		return nil, nil, storeError(s.opts.GraphRoot, "reading", err)
	}
	if config, err = s.config(img); err != nil {
		return nil, nil, err
	}
	var c struct {
		RootFS ocispec.RootFS `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, nil, fmt.Errorf("reading image config: %w", err)
	}
	blobs := make([]blob, len(c.RootFS.DiffIDs)) // none for an image without layers, which has an empty one in the store
	for i, d := range c.RootFS.DiffIDs {
		blobs[i].diffID = d
	}
	for i, id := range chainIDs(blobs) {
		l, err := s.has(id)
		if err == nil && l == nil {
			err = storeError(s.opts.GraphRoot, "reading", errDamaged)
		}
		if err != nil {
			return nil, nil, err
		}
		layers = append(layers, storedLayer{id: id, diffID: blobs[i].diffID, size: l.UncompressedSize})
	}
	return config, layers, nil
}

// layerStream makes a layer's tar stream again from its files and tar-split's account, byte for byte, passes it to
// write and verifies it. It takes no lock of the store's, whose own Diff would keep all others off for as long.
func (s *Store) layerStream(ctx context.Context, l storedLayer, write func(io.Reader) error) error {
	account, err := os.Open(filepath.Join(s.opts.GraphRoot, driverName+"-layers", l.id+".tar-split.gz"))
	if err != nil {
		return storeError(s.opts.GraphRoot, "reading", err)
	}
	defer account.Close()
	unzipped, err := gzip.NewReader(account)
	if err != nil {
		return storeError(s.opts.GraphRoot, "reading", fmt.Errorf("%w: %w", errDamaged, err))
	}
	defer unzipped.Close()
	root, err := os.Open(filepath.Join(s.overlayDir(), l.id, "diff"))
	if err != nil {
		return storeError(s.opts.GraphRoot, "reading", err)
	}
	defer root.Close()
	stream := asm.NewOutputTarStream(layerFiles{root}, storage.NewJSONUnpacker(unzipped))
	defer stream.Close()
	checked := newSum(&cancellable{ctx, stream})
	if err := write(checked); err != nil {
		return fmt.Errorf("layer %.12s: %w", l.diffID.Encoded(), err)
	}
	// Who writes to an archive stops at the size it announced; the end must be seen, too.
	if _, err := io.Copy(io.Discard, checked); err != nil {
		return fmt.Errorf("layer %.12s: %w", l.diffID.Encoded(), err)
	}
	if got := checked.digest(); got != l.diffID {
		return storeError(s.opts.GraphRoot, "reading", fmt.Errorf("%w: layer %.12s now has the digest %s", errDamaged, l.diffID.Encoded(), got))
	}
	return nil
}

// layerFiles opens files of a layer; paths and links end within it.
type layerFiles struct{ root *os.File }

// Get implements storage.FileGetter.
func (f layerFiles) Get(name string) (io.ReadCloser, error) {
	name = strings.TrimLeft(name, "/")
	fd, err := unix.Openat2(int(f.root.Fd()), name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: resolveInLayer})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// packLayer compresses a layer into a blob.
func (s *Store) packLayer(ctx context.Context, out sink, l storedLayer) (_ ocispec.Descriptor, err error) {
	f, err := os.CreateTemp(out.scratch(), "layer-")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer f.Close()
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip}
	sum := digest.SHA256.Digester()
	err = s.layerStream(ctx, l, func(r io.Reader) error {
		z := pgzip.NewWriter(io.MultiWriter(f, sum.Hash()))
		_, err := io.Copy(z, r)
		return errors.Join(err, z.Close())
	})
	if err != nil {
		return d, err
	}
	st, err := f.Stat()
	if err != nil {
		return d, err
	}
	d.Digest, d.Size = sum.Digest(), st.Size()
	return d, out.take(blobPath(d.Digest), f)
}

func putBytes(out sink, name string, raw []byte) error {
	return out.put(name, int64(len(raw)), bytes.NewReader(raw))
}
