package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// files are what a layout folder or an archive holds.
type files interface {
	// open gives a file and its size; fs.ErrNotExist if there is none.
	open(name string) (io.ReadCloser, int64, error)
	close() error
}

// layoutDir is a folder; links in it may not lead out of it.
type layoutDir struct{ root *os.Root }

func (d layoutDir) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|unix.O_NONBLOCK, 0) // a fifo must not be waited for
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

func (d layoutDir) close() error { return d.root.Close() }

// archive is a tar archive whose files are read where they are.
type archive struct {
	f       *os.File
	entries map[string]entry
}

type entry struct {
	offset, size int64
	link         string // the name of the file it stands for, or empty
}

// maxLinks is how many links in an archive may name each other; docker save makes one.
const maxLinks = 8

func (a *archive) open(name string) (io.ReadCloser, int64, error) {
	for range maxLinks {
		e, ok := a.entries[path.Clean(name)]
		if !ok {
			break
		}
		if e.link == "" {
			return io.NopCloser(io.NewSectionReader(a.f, e.offset, e.size)), e.size, nil
		}
		name = e.link
	}
	return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (a *archive) close() error { return a.f.Close() }

// openFiles opens a layout folder or an archive. A compressed archive, and one that cannot be read back and forth, is
// first unpacked to a file without a name in tmp.
func openFiles(ctx context.Context, name, tmp string, l limits) (files, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if st.IsDir() {
		f.Close()
		root, err := os.OpenRoot(name)
		if err != nil {
			return nil, err
		}
		return layoutDir{root}, nil
	}
	head := make([]byte, magicLength)
	n, err := fill(f, head)
	if err != nil && err != io.EOF {
		return nil, errors.Join(err, f.Close())
	}
	if !st.Mode().IsRegular() || detect(head[:n]) != plain {
		spooled, err := spool(ctx, io.MultiReader(bytes.NewReader(head[:n]), f), tmp, l)
		f.Close()
		if err != nil {
			return nil, err
		}
		f = spooled
	}
	entries, err := listTar(ctx, f, l)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &archive{f: f, entries: entries}, nil
}

// spool decompresses r into a file without a name, which is gone with the process however that ends.
func spool(ctx context.Context, r io.Reader, dir string, l limits) (*os.File, error) {
	f, err := nameless(dir)
	if err != nil {
		return nil, storeError(dir, "writing", err)
	}
	z, err := decompress(r, l)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	defer z.Close()
	if _, err := io.Copy(f, &cancellable{ctx, z}); err != nil {
		return nil, errors.Join(unpackError(dir, err), f.Close())
	}
	return f, nil
}

// nameless makes a file that no name leads to.
func nameless(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return f, err
	}
	if f, err = os.CreateTemp(dir, ".spool-"); err != nil { // a file system without O_TMPFILE
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// cancellable ends with its context.
type cancellable struct {
	ctx context.Context //nolint:containedctx // a reader's reads belong to the call that made it
	r   io.Reader
}

// Read implements io.Reader.
func (c *cancellable) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// listTar notes where an archive's files are.
func listTar(ctx context.Context, f *os.File, l limits) (map[string]entry, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	entries := map[string]entry{}
	var used counter
	for tr := tar.NewReader(f); ; {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			return entries, nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return nil, err
		}
		if err := used.entry(l, hdr.Name, hdr.Linkname); err != nil {
			return nil, err
		}
		name := path.Clean(hdr.Name)
		switch hdr.Typeflag {
		case tar.TypeReg:
			at, err := f.Seek(0, io.SeekCurrent) // the parser reads no further than the header
			if err != nil {
				return nil, err
			}
			entries[name] = entry{offset: at, size: hdr.Size}
		case tar.TypeSymlink:
			entries[name] = entry{link: path.Join(path.Dir(name), hdr.Linkname)}
		case tar.TypeLink:
			entries[name] = entry{link: hdr.Linkname}
		}
	}
}
