package image

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/vbatts/tar-split/tar/storage"
	"golang.org/x/sys/unix"
)

// A layer that was unpacked with one id has lost its owners, but the store has not: tar-split's account holds the
// layer's headers byte by byte, with owners, modes, devices and attributes, also of links and fifos, which user.*
// attributes cannot be set on (xattr(7)). So when the user has got ranges, each such layer is mended from there, once, at
// its image's next use, and nothing is pulled again.

// ownersXattr marks the root of a layer whose files are all of one owner.
const ownersXattr = "user.whisk.owners"

// markOwners notes that a layer's owners are missing.
func markOwners(root string) error {
	if err := unix.Lsetxattr(root, ownersXattr, []byte("one"), 0); err != nil {
		return fmt.Errorf("setting %s: %w", ownersXattr, err)
	}
	return nil
}

// ownersMissing tells whether a layer is marked.
func ownersMissing(root string) bool {
	_, err := unix.Lgetxattr(root, ownersXattr, nil)
	return err == nil
}

// mendOwners gives the files of an image's layers the owners that they lost when they were unpacked with one id. layers
// are as Image.Layers. With one id it does nothing.
func (s *Store) mendOwners(ctx context.Context, layers []string) error {
	if s.opts.IgnoreChownErrors {
		return nil
	}
	below := ""
	for _, l := range slices.Backward(layers) {
		root, err := filepath.EvalSymlinks(filepath.Join(s.overlayDir(), l))
		if err != nil {
			return storeError(s.opts.GraphRoot, "reading", err)
		}
		if ownersMissing(root) {
			if err := s.mendLayer(ctx, root, below); err != nil {
				return err
			}
		}
		below = root
	}
	return nil
}

// mendLayer mends one layer; below is the root of the layer that it lies on, or empty. It may be killed at any time: the
// mark goes last.
func (s *Store) mendLayer(ctx context.Context, root, below string) error {
	id := filepath.Base(filepath.Dir(root))
	g, err := s.stage(ctx, id)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return storeError(s.opts.GraphRoot, "writing", err)
	}
	defer g.close() //nolint:errcheck // a lock and an empty folder
	if !ownersMissing(root) {
		return nil // another process was quicker
	}
	if err := s.remakeOwners(ctx, id, root, below); err != nil {
		return fmt.Errorf("giving the files of layer %.12s their owners: %w", id, unpackError(s.opts.GraphRoot, err))
	}
	return nil
}

func (s *Store) remakeOwners(ctx context.Context, id, dir, below string) error {
	account, err := os.Open(filepath.Join(s.opts.GraphRoot, driverName+"-layers", id+".tar-split.gz"))
	if err != nil {
		return err
	}
	defer account.Close()
	unzipped, err := gzip.NewReader(account)
	if err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	defer unzipped.Close()
	root, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{ctx: ctx, root: root}
	defer u.parent.forget()
	if err := u.mend(&headersOf{in: storage.NewJSONUnpacker(unzipped)}); err != nil {
		return err
	}
	if below != "" && !u.rootSeen {
		if err := copyRoot(below, dir); err != nil {
			return err
		}
	}
	if err := unix.Syncfs(int(root.Fd())); err != nil { // no power cut may keep the removal and lose the owners
		return err
	}
	return unix.Fremovexattr(int(root.Fd()), ownersXattr)
}

// mend reads a layer's headers from src and gives the files that they are about their owners, modes and attributes.
func (u *unpacker) mend(src io.Reader) error {
	tr := tar.NewReader(src)
	for {
		if err := u.ctx.Err(); err != nil {
			return context.Cause(u.ctx)
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil && !(errors.Is(err, tar.ErrInsecurePath) && hdr != nil) {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
		if err := u.mendEntry(hdr); err != nil {
			return fmt.Errorf("%q: %w", hdr.Name, err)
		}
	}
}

// mendEntry mends what an entry made, if it is there still: a later one may have put something else in its place.
func (u *unpacker) mendEntry(hdr *tar.Header) error {
	var kind uint32
	switch hdr.Typeflag {
	case tar.TypeDir:
		kind = unix.S_IFDIR
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		kind = unix.S_IFREG
	case tar.TypeSymlink:
		kind = unix.S_IFLNK
	case tar.TypeFifo:
		kind = unix.S_IFIFO
	default: // a hard link is mended with the file that it is one of
		return nil
	}
	dir, base, err := place(hdr.Name)
	if err != nil {
		return err
	}
	if base == "" {
		u.rootSeen = true
		return u.attributes(int(u.root.Fd()), hdr)
	}
	parent, err := u.openParent(dir, false)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err == unix.ENOENT || err == nil && st.Mode&unix.S_IFMT != kind {
		return nil
	} else if err != nil {
		return err
	}
	chown := func(uid, gid int) error { return unix.Fchownat(parent, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW) }
	switch kind {
	case unix.S_IFLNK:
		return u.chown(hdr, chown)
	case unix.S_IFIFO:
		if err := u.chown(hdr, chown); err != nil {
			return err
		}
		return unix.Fchmodat(parent, base, uint32(hdr.Mode)&permissionBits, 0)
	}
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return u.attributes(fd, hdr)
}

// headersOf makes a layer's tar stream of tar-split's account, with zeros for what files hold.
type headersOf struct {
	in    storage.Unpacker
	raw   []byte
	zeros int64
}

// Read implements io.Reader.
func (h *headersOf) Read(p []byte) (int, error) {
	for {
		switch {
		case len(p) == 0:
			return 0, nil
		case len(h.raw) > 0:
			n := copy(p, h.raw)
			h.raw = h.raw[n:]
			return n, nil
		case h.zeros > 0:
			n := min(int64(len(p)), h.zeros)
			clear(p[:n])
			h.zeros -= n
			return int(n), nil
		}
		e, err := h.in.Next()
		if err != nil {
			return 0, err
		}
		switch e.Type {
		case storage.SegmentType:
			h.raw = e.Payload
		case storage.FileType:
			h.zeros = e.Size
		}
	}
}
