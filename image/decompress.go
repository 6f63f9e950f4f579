package image

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// zstdWindow bounds the memory that a zstd frame may ask for: 128 MiB is what the zstd program accepts without being
// told to, and what its highest levels use.
const zstdWindow = 128 << 20

// Compression of a layer or archive, told by its first bytes: what a manifest says of it is sometimes wrong.
type compression int

const (
	plain compression = iota
	gzipped
	zstandard
	unknownCompression // bzip2 and xz, which the image spec has never allowed
)

// magicLength is how many bytes detect needs.
const magicLength = 6

func detect(head []byte) compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 0x08}):
		return gzipped
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstandard
	case len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.HasPrefix(head[1:], []byte{0x2a, 0x4d, 0x18}):
		return zstandard // a skippable frame comes first in zstd:chunked layers
	case bytes.HasPrefix(head, []byte("BZh")), bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return unknownCompression
	}
	return plain
}

// decompress reads what r holds, whatever it is packed with, within the limits' ratio. Closing the result does not close r.
func decompress(r io.Reader, l limits) (io.ReadCloser, error) {
	packed := &counted{r: r}
	// A bufio.Reader is what the gzip decoder has a fast path for: 1.6 times as fast as with any other.
	whole := bufio.NewReaderSize(packed, 64<<10)
	head, err := whole.Peek(magicLength)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch detect(head) {
	case gzipped:
		z, err := gzip.NewReader(whole)
		if err != nil {
			return nil, fmt.Errorf("reading gzip: %w", err)
		}
		return &inflated{ReadCloser: z, packed: packed, limits: l}, nil
	case zstandard:
		// One worker: layers run side by side already.
		z, err := zstd.NewReader(whole, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return nil, fmt.Errorf("reading zstd: %w", err)
		}
		return &inflated{ReadCloser: z.IOReadCloser(), packed: packed, limits: l}, nil
	case unknownCompression:
		return nil, errors.New("it is compressed by bzip2 or xz; images use gzip, zstd or nothing")
	}
	return io.NopCloser(whole), nil
}
