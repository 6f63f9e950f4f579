package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// Names by which a layer says what it hides of those below (image-spec layer.md, "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	aufsPrefix     = ".wh..wh." // what else begins so is AUFS's own
)

// unpacker writes one layer's entries below root.
type unpacker struct {
	ctx              context.Context //nolint:containedctx // an unpacker is one call
	root             *os.File        // the layer's root, O_PATH or better
	ignoreChown      bool
	limits           limits
	used             counter
	naive            bool // names and links are the host's: only whisk's own tests have it so
	buf              []byte
	parent           dirCache
	whiteouts        map[string]bool // paths that this layer has hidden so far
	dirs             []dirTime       // times to set when nothing is written below any more
	rootSeen         bool            // the layer says what its root is like
	skippedDevices   int
	unsupportedAttrs int
}

type dirTime struct {
	path  string
	times [2]unix.Timespec
}

// unpacked is what is known of a layer that was unpacked.
type unpacked struct {
	RootSeen bool // the layer has an entry for its root
	Devices  int  // device nodes left out: no user namespace may make them
}

// unpackLayer writes the tar stream src, a layer, into the empty folder dir, and tar-split's account of it to split.
// Whiteouts become overlayfs's. It reads src to its end. A path that climbs out of the layer is an error, and links
// are followed within the layer only. What goes beyond the limits is an *Error.
func unpackLayer(ctx context.Context, src io.Reader, dir string, ignoreChown bool, bounds limits, split io.Writer) (unpacked, error) {
	root, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return unpacked{}, err
	}
	defer root.Close()
	u := &unpacker{ctx: ctx, root: root, ignoreChown: ignoreChown, limits: bounds, naive: !wall.Up("layer paths")}
	return u.unpack(src, split)
}

func (u *unpacker) unpack(src io.Reader, split io.Writer) (unpacked, error) {
	u.buf, u.whiteouts = make([]byte, 256<<10), map[string]bool{}
	defer u.parent.forget()
	s := newSplitter(src, split)
	tr := tar.NewReader(s)
	for {
		if err := u.ctx.Err(); err != nil {
			return unpacked{}, context.Cause(u.ctx)
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil && !(errors.Is(err, tar.ErrInsecurePath) && hdr != nil) { // place judges paths itself
			return unpacked{}, tarError(err)
		}
		if err := u.used.entry(u.limits, hdr.Name, hdr.Linkname); err != nil {
			return unpacked{}, err
		}
		if err := u.entry(hdr, tr, s); err != nil {
			return unpacked{}, fmt.Errorf("%q: %w", brief(hdr.Name), err)
		}
	}
	if err := s.end(); err != nil {
		return unpacked{}, err
	}
	return unpacked{RootSeen: u.rootSeen, Devices: u.skippedDevices}, u.setDirTimes()
}

// tarError words what the parser says of foreign bytes; an error of the stream below passes.
func tarError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) {
		return fmt.Errorf("it is not a tar archive: %w", err)
	}
	return err
}

// errEscape is a path that leads out of the layer.
var errEscape = errors.New("the path leads out of the layer")

// place splits an entry's name into its folder and its last part, both cleaned; "", "" is the root. A leading slash
// means the layer's root, as it does for tar(1) and Docker.
func place(name string) (dir, base string, err error) {
	depth := 0
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return "", "", errEscape
			}
		default:
			depth++
		}
	}
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if clean == "" {
		return "", "", nil
	}
	dir, base = path.Split(clean)
	return strings.TrimSuffix(dir, "/"), base, nil
}

// place is the function's, or what tools of old made of a name: the host's own path.
func (u *unpacker) place(name string) (dir, base string, err error) {
	if u.naive {
		dir, base = path.Split(name)
		return dir, base, nil
	}
	return place(name)
}

func (u *unpacker) entry(hdr *tar.Header, content io.Reader, s *splitter) error {
	switch hdr.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil // comments of git archive and the like
	}
	dir, base, err := u.place(hdr.Name)
	if err != nil {
		return err
	}
	if base == "" {
		if hdr.Typeflag != tar.TypeDir {
			return errors.New("the layer's root is not a folder")
		}
		u.rootSeen = true
		return u.rootEntry(hdr)
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return u.hide(dir, base)
	}
	if hdr.Typeflag == tar.TypeGNUSparse || isSparse(hdr) {
		if err := u.used.hole(u.limits, hdr.Size); err != nil {
			return err
		}
	}
	if strings.HasPrefix(dir, aufsPrefix) {
		return nil
	}
	parent, err := u.openParent(dir, true)
	if err != nil {
		return err
	}
	full := path.Join(dir, base)
	hidden, err := u.clear(parent, full, base, hdr.Typeflag == tar.TypeDir)
	if err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		err = u.directory(parent, base, full, hdr, hidden)
	case tar.TypeReg, tar.TypeCont: // the reader gives old tars' files the first
		write := func(r io.Reader) error { return u.file(parent, base, hdr, r) }
		if isSparse(hdr) {
			err = write(content)
		} else {
			err = s.file(hdr.Name, hdr.Size, content, write)
		}
	case tar.TypeGNUSparse:
		err = u.file(parent, base, hdr, content)
	case tar.TypeSymlink:
		err = u.symlink(parent, base, hdr)
	case tar.TypeLink:
		err = u.hardlink(parent, base, hdr)
	case tar.TypeFifo:
		err = u.fifo(parent, base, hdr)
	case tar.TypeChar, tar.TypeBlock:
		// The kernel lets no user namespace make device nodes, but for overlayfs's whiteouts, and those are
		// not a layer's to make by hand.
		u.skippedDevices++
	default:
		err = fmt.Errorf("entries of type %q are not known", hdr.Typeflag)
	}
	return err
}

func isSparse(hdr *tar.Header) bool {
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}
