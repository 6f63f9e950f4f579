package image

import (
	"bytes"
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

// decompress reads what r holds, whatever it is packed with. Closing the result does not close r.
func decompress(r io.Reader) (io.ReadCloser, error) {
	head := make([]byte, magicLength)
	n, err := fill(r, head)
	if err != nil && err != io.EOF {
		return nil, err
	}
	whole := &prefixed{head: head[:n], rest: r}
	switch detect(head[:n]) {
	case gzipped:
		z, err := gzip.NewReader(whole)
		if err != nil {
			return nil, fmt.Errorf("reading gzip: %w", err)
		}
		return z, nil
	case zstandard:
		// One worker: layers run side by side already.
		z, err := zstd.NewReader(whole, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return nil, fmt.Errorf("reading zstd: %w", err)
		}
		return z.IOReadCloser(), nil
	case unknownCompression:
		return nil, fmt.Errorf("it is compressed by bzip2 or xz; images use gzip, zstd or nothing")
	}
	return io.NopCloser(whole), nil
}

// prefixed is a reader with its first bytes put back.
type prefixed struct {
	head []byte
	rest io.Reader
}

// Read implements io.Reader.
func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	return p.rest.Read(b)
}

// ReadByte implements io.ByteReader, so that gzip adds no buffer. The rest is a readAhead wherever speed matters.
func (p *prefixed) ReadByte() (byte, error) {
	if len(p.head) > 0 {
		b := p.head[0]
		p.head = p.head[1:]
		return b, nil
	}
	if br, ok := p.rest.(io.ByteReader); ok {
		return br.ReadByte()
	}
	var one [1]byte
	_, err := io.ReadFull(p.rest, one[:])
	return one[0], err
}
