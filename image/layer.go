package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"go.podman.io/storage"
	graphdriver "go.podman.io/storage/drivers"
	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// layer is one that is in the store already, or that is unpacked and may be committed.
type layer struct {
	id      string
	exists  bool // then only info is set
	info    layerInfo
	blob    blob
	staging *staging
	split   *os.File // tar-split's account, without a name
	done    func()
	layerResult
}

type layerInfo struct {
	size int64 // of the tar stream
}

type layerResult struct {
	unpacked
	packed digest.Digest // of the bytes transferred
}

// drop frees what a layer holds that is not to be committed.
func (l *layer) drop() error {
	if l.exists {
		return nil
	}
	return errors.Join(l.split.Close(), l.staging.close())
}

// has looks a layer up in the store; nil without an error when it is not there.
func (s *Store) has(id string) (*storage.Layer, error) {
	l, err := s.store.Layer(id)
	if errors.Is(err, storage.ErrLayerUnknown) {
		return nil, nil
	}
	if err != nil {
		return nil, storeError(s.opts.GraphRoot, "reading", err)
	}
	return l, nil
}

// takeLayer fetches and unpacks one layer, unless the store has it or gets it from another process meanwhile.
func (s *Store) takeLayer(ctx context.Context, b *bundle, i int, id string, p Progress) (_ *layer, err error) {
	defer s.catch(&err)
	step := Step{Layer: b.layers[i].short(), State: Waiting, Total: max(0, b.layers[i].size)}
	p(step)
	exists := func() (*layer, error) {
		have, err := s.has(id)
		if have == nil || err != nil {
			return nil, err
		}
		step.State = Kept
		p(step)
		return &layer{id: id, exists: true, info: layerInfo{size: have.UncompressedSize}}, nil
	}
	if l, err := exists(); l != nil || err != nil {
		return l, err
	}
	g, err := s.stage(ctx, id)
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, storeError(s.opts.GraphRoot, "writing", err)
	}
	if l, err := exists(); l != nil || err != nil {
		return l, errors.Join(err, g.close())
	}
	l := &layer{id: id, blob: b.layers[i], staging: g, done: func() { step.State = Done; p(step) }}
	if l.split, err = nameless(g.dir); err != nil {
		return nil, errors.Join(storeError(s.opts.GraphRoot, "writing", err), g.close())
	}
	update := func(n int64) { p(Step{Layer: step.Layer, State: Downloading, Bytes: n, Total: step.Total}) }
	err = s.fillLayer(ctx, l, func(ctx context.Context) (io.ReadCloser, error) { return b.openLayer(ctx, i) }, update)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("layer %s: %w", step.Layer, err), l.drop())
	}
	update(step.Total)
	return l, nil
}

// fillLayer unpacks a blob into its staging folder and checks both its digests.
func (s *Store) fillLayer(ctx context.Context, l *layer, open func(context.Context) (io.ReadCloser, error), update func(int64)) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	src, err := open(ctx)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := os.Mkdir(l.staging.root(), 0o755); err != nil {
		return storeError(s.opts.GraphRoot, "writing", err)
	}
	packed := newSum(src)
	if l.blob.size >= 0 && wall.Up("blob sizes") {
		packed.r = &bounded{r: src, left: l.blob.size}
	}
	packed.update = update
	update(0)

	// Closing in this order ends each step before the one it reads from; the first ends with its source.
	raw := newReadAhead(packed)
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { src.Close() })
	defer stop()
	defer cancel(nil)
	z, err := decompress(raw, s.limits)
	if err != nil {
		return err
	}
	tarStream := newReadAhead(z)
	diff := newSum(tarStream)
	split := bufio.NewWriterSize(l.split, 64<<10)
	l.unpacked, err = unpackLayer(ctx, diff, l.staging.root(), s.opts.IgnoreChownErrors, s.limits, split)
	if err == nil {
		err = split.Flush()
	}
	if err == nil {
		_, err = io.Copy(io.Discard, raw) // the digest covers what the decompressor has not asked for
	}
	if err != nil {
		cancel(err)
	}
	err = errors.Join(err, tarStream.Close(), z.Close())
	if errors.Is(err, errTooLong) {
		return &Error{Message: fmt.Sprintf("layer %s goes on after the %d bytes that the manifest gives it", l.blob.short(), l.blob.size), Remedy: "tell the image's maker", Err: err}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) && raw.err == io.EOF && packed.n >= l.blob.size { // all of it arrived
		return &Error{Message: fmt.Sprintf("layer %s ends in the middle: it was packed incompletely, damaged or forged", l.blob.short()), Remedy: "tell the image's maker"}
	}
	if err != nil {
		return unpackError(s.opts.GraphRoot, err)
	}
	l.packed, l.info.size = packed.digest(), diff.n
	if l.blob.digest != "" && l.blob.digest != l.packed {
		if l.blob.size >= 0 && packed.n < l.blob.size {
			return &Error{Message: fmt.Sprintf("layer %s was cut off after %s of %s", l.blob.short(), size(packed.n), size(l.blob.size)), Remedy: "try again", Err: io.ErrUnexpectedEOF}
		}
		return &Error{Message: fmt.Sprintf("layer %s has the wrong digest: its bytes have %s", l.blob.short(), l.packed), Remedy: "it was damaged or forged; try again, and tell the image's maker if it stays so"}
	}
	if l.blob.size >= 0 && packed.n != l.blob.size {
		return &Error{Message: fmt.Sprintf("layer %s has %d bytes; the manifest says %d", l.blob.short(), packed.n, l.blob.size), Remedy: "tell the image's maker"}
	}
	if got := diff.digest(); got != l.blob.diffID {
		return &Error{Message: fmt.Sprintf("layer %s has the wrong digest: unpacked it has %s; the config says %s", l.blob.short(), got, l.blob.diffID), Remedy: "tell the image's maker"}
	}
	return nil
}

// unpackError words the store's part of what can go wrong while unpacking.
func unpackError(path string, err error) error {
	for _, full := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO} {
		if errors.Is(err, full) {
			return storeError(path, "writing", err)
		}
	}
	return err
}

// commit renames an unpacked layer into place and records it. Its parent must be in the store.
func (s *Store) commit(l *layer, parent string) (_ layerInfo, err error) {
	defer s.catch(&err)
	if l.exists {
		return l.info, nil
	}
	defer l.staging.close() //nolint:errcheck // only a lock and an empty folder are left of it
	if parent != "" && !l.RootSeen {
		// What the layer does not say of its root is as it was below: overlayfs shows the topmost root only.
		if err := copyRoot(filepath.Join(s.overlayDir(), parent, "diff"), l.staging.root()); err != nil {
			return layerInfo{}, errors.Join(storeError(s.opts.GraphRoot, "writing", err), l.split.Close())
		}
	}
	if s.opts.IgnoreChownErrors {
		if err := markOwners(l.staging.root()); err != nil {
			return layerInfo{}, errors.Join(storeError(s.opts.GraphRoot, "writing", err), l.split.Close())
		}
	}
	st, err := os.Stat(l.staging.root())
	if err != nil {
		return layerInfo{}, errors.Join(storeError(s.opts.GraphRoot, "reading", err), l.split.Close())
	}
	mode := st.Mode()
	_, err = s.store.ApplyStagedLayer(storage.ApplyStagedLayerOptions{ // closes split
		ID:          l.id,
		ParentLayer: parent,
		DiffOutput: &graphdriver.DriverWithDifferOutput{
			Target:             l.staging.root(),
			Size:               l.info.size,
			UncompressedDigest: l.blob.diffID,
			CompressedDigest:   l.packed,
			TarSplit:           l.split,
			RootDirMode:        &mode, // else the driver sets its parent's
		},
		DiffOptions: &graphdriver.ApplyDiffWithDifferOpts{},
	})
	if err != nil {
		return layerInfo{}, storeError(s.opts.GraphRoot, "writing", err)
	}
	l.done()
	return l.info, nil
}

// copyRoot gives the folder to the owner and mode of the folder from.
func copyRoot(from, to string) error {
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%w: %w", storage.ErrLayerUnknown, err)
		}
		return err
	}
	if err := unix.Chown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Chmod(to, st.Mode&permissionBits)
}

// updateInterval bounds how often a layer's progress is told.
const updateInterval = 50 * time.Millisecond

// sum hashes and counts what is read through it.
type sum struct {
	r      io.Reader
	h      digest.Digester
	n      int64
	update func(int64) // may be nil
	last   time.Time
}

func newSum(r io.Reader) *sum { return &sum{r: r, h: digest.SHA256.Digester()} }

func (s *sum) digest() digest.Digest { return s.h.Digest() }

// Read implements io.Reader.
func (s *sum) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	_, _ = s.h.Hash().Write(p[:n]) // hash.Hash never fails
	if s.update != nil && time.Since(s.last) >= updateInterval {
		s.last = time.Now()
		s.update(s.n)
	}
	return n, err
}
