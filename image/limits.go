package image

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// limits bound what one stranger's layer or archive may cost. No image in use comes near them; docs/security.md lists
// them.
type limits struct {
	entries int   // of an archive
	names   int64 // bytes of an archive's paths, which are held in memory until it ends
	sparse  int64 // bytes that the sparse files of a layer claim together: holes cost no space, but time to read

	// A stream may unpack to free bytes, and beyond to ratio times what it was packed as: gzip reaches 1032, zstd 32768,
	// and what programs and documents make is below 20.
	free, ratio int64
}

func defaultLimits() limits {
	if !wall.Up("layer limits") {
		return limits{entries: math.MaxInt, names: math.MaxInt64, sparse: math.MaxInt64, free: math.MaxInt64, ratio: 1}
	}
	return limits{entries: 4_000_000, names: 512 << 20, sparse: 256 << 30, free: 4 << 30, ratio: 200}
}

// counter is what a layer or archive has used of its limits.
type counter struct {
	entries int
	names   int64
	sparse  int64
}

// entry counts one more entry of an archive.
func (c *counter) entry(l limits, name, link string) error {
	c.entries++
	c.names += int64(len(name)) + int64(len(link))
	switch {
	case c.entries > l.entries:
		return &Error{Message: fmt.Sprintf("it has more than %d files", l.entries)}
	case c.names > l.names:
		return &Error{Message: fmt.Sprintf("its files' names take more than %s", size(l.names))}
	}
	return nil
}

// hole counts a sparse file.
func (c *counter) hole(l limits, n int64) error {
	if n > l.sparse-c.sparse {
		return &Error{Message: fmt.Sprintf("its sparse files are larger than %s", size(l.sparse))}
	}
	c.sparse += n
	return nil
}

// counted counts what is read through it. Unlike sum, it belongs to one goroutine.
type counted struct {
	r io.Reader
	n int64
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// inflated is a decompressor's output that ends with an error where it grows out of proportion to what was packed.
type inflated struct {
	io.ReadCloser
	packed *counted
	n      int64
	limits limits
}

// Read implements io.Reader.
func (z *inflated) Read(p []byte) (int, error) {
	n, err := z.ReadCloser.Read(p)
	z.n += int64(n)
	if z.n > z.limits.free && z.n/z.limits.ratio > z.packed.n {
		return 0, &Error{Message: fmt.Sprintf("%s unpack to more than %s: it is a decompression bomb", size(z.packed.n), size(z.n-int64(n)))}
	}
	return n, err
}

// errTooLong is a blob that goes on after the size that its manifest gives.
var errTooLong = errors.New("it is longer than its manifest says")

// bounded reads at most left bytes, and then wants the end.
type bounded struct {
	r    io.Reader
	left int64
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		p = p[:b.left+1] // the one more tells
	}
	n, err := b.r.Read(p)
	if int64(n) > b.left {
		return int(b.left), errTooLong
	}
	b.left -= int64(n)
	return n, err
}
