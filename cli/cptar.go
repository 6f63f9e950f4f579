package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/whisk-sandbox/whisk/internal/wall"
	"github.com/whisk-sandbox/whisk/launcher"
)

// pack writes a file or folder of this machine as an archive whose first entry is called ".". This user is root in a sandbox,
// and so are all others: nobody else's id means anything there. A sandbox that the folder is shared with may swap what is in
// it for links at any moment: what is read is what was looked at, and no link leads out of the folder (os.Root).
func pack(w io.Writer, top string) error {
	st, err := os.Lstat(top)
	if err != nil {
		return err
	}
	p := packer{out: tar.NewWriter(w), within: "."}
	if !st.IsDir() {
		top, p.within = filepath.Dir(top), filepath.Base(top)
	}
	if p.root, err = os.OpenRoot(top); err != nil {
		return err
	}
	defer p.root.Close()
	now, err := p.root.Lstat(p.within)
	if err != nil {
		return err
	}
	if !os.SameFile(st, now) {
		return errChanged
	}
	err = fs.WalkDir(p.root.FS(), p.within, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		for try := 1; ; try++ {
			if err := p.entry(name); try == 10 || !errors.Is(err, errChanged) {
				return err
			}
		}
	})
	if err != nil {
		return err
	}
	return p.out.Close()
}

// packer is an archive being written of what is in a folder.
type packer struct {
	out    *tar.Writer
	root   *os.Root
	within string // what is packed, "." for all
}

var errChanged = errors.New("it was swapped for another while it was being read")

func (p *packer) entry(name string) error {
	st, err := p.root.Lstat(name)
	if err != nil {
		return err
	}
	link := ""
	var content *os.File
	switch st.Mode().Type() {
	case 0:
		if content, err = p.open(name, st); err != nil {
			return err
		}
		defer content.Close()
		if st, err = content.Stat(); err != nil {
			return err
		}
	case fs.ModeDir:
	case fs.ModeSymlink:
		if link, err = p.root.Readlink(name); errors.Is(err, syscall.EINVAL) {
			return errChanged
		}
		if err != nil {
			return err
		}
	default: // sockets, pipes and devices are left out, as on the way back
		return nil
	}
	h, err := tar.FileInfoHeader(st, link)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(p.within, name)
	if err != nil {
		return err
	}
	h.Name, h.Format, h.Uname, h.Gname = rel, tar.FormatPAX, "", ""
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		h.Uid, h.Gid = seenInside(s.Uid, os.Getuid()), seenInside(s.Gid, os.Getgid())
	}
	if err := p.out.WriteHeader(h); err != nil || content == nil {
		return err
	}
	_, err = io.CopyN(p.out, content, h.Size)
	return err
}

// open opens a regular file if it is still the one that was looked at. A pipe in its place holds nobody up.
func (p *packer) open(name string, st fs.FileInfo) (*os.File, error) {
	if !wall.Up("copies of what was looked at") {
		return os.Open(filepath.Join(p.root.Name(), name))
	}
	f, err := p.root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		if now, e := p.root.Lstat(name); e == nil && !os.SameFile(st, now) {
			return nil, errChanged
		}
		return nil, err
	}
	if now, err := f.Stat(); err != nil || !os.SameFile(st, now) {
		f.Close()
		return nil, errors.Join(errChanged, err)
	}
	return f, nil
}

// seenInside is the id that a file's owner has in a sandbox.
func seenInside(id uint32, own int) int {
	if int(id) == own {
		return 0
	}
	return int(id)
}

// unpackTo takes an archive from a sandbox to a path of this machine. Its names and links are a stranger's: nothing is made
// outside of the folder that it goes to, os.Root.
func unpackTo(r io.Reader, contents bool, to string) error {
	in := tar.NewReader(r)
	h, err := in.Next()
	if err == io.EOF {
		return nil // the keeper says why
	}
	if err != nil {
		return err
	}
	top, as, err := unpackTarget(h, contents, to)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(top)
	if err != nil {
		return err
	}
	defer root.Close()
	first := strings.TrimSuffix(h.Name, "/")
	var folders []*tar.Header
	for ; err == nil; h, err = in.Next() {
		rest, ok := strings.CutPrefix(strings.TrimSuffix(h.Name, "/"), first)
		if first == "." {
			rest, ok = strings.TrimSuffix(h.Name, "/"), true
		}
		if !ok {
			return fmt.Errorf("an entry %q beside %q", h.Name, first)
		}
		h.Name = filepath.Join(as, strings.TrimPrefix(rest, "/"))
		if h.Name == "" || h.Name == "." {
			continue
		}
		if err := unpackEntry(root, h, in); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeDir {
			folders = append(folders, h)
		}
	}
	if err != io.EOF {
		return err
	}
	for i := len(folders) - 1; i >= 0; i-- { // what is in them has changed their times, and they may be read-only
		d := folders[i]
		if err := errors.Join(root.Chmod(d.Name, d.FileInfo().Mode().Perm()), root.Chtimes(d.Name, d.ModTime, d.ModTime)); err != nil {
			return err
		}
	}
	return nil
}

// unpackTarget finds the folder that the first entry goes to, and what it is called there; docker cp's rules.
func unpackTarget(h *tar.Header, contents bool, to string) (top, as string, err error) {
	folder := h.Typeflag == tar.TypeDir
	st, err := os.Stat(to)
	switch {
	case err == nil && st.IsDir():
		if contents {
			return to, "", nil
		}
		return to, filepath.Base(h.Name), nil
	case err == nil && folder:
		return "", "", &launcher.Error{Message: fmt.Sprintf("%s is a file, and a folder was to be copied to it", to), Exit: launcher.ExitWhisk}
	case err == nil || errors.Is(err, fs.ErrNotExist) && (folder || !strings.HasSuffix(to, "/")):
		to = filepath.Clean(to)
		return filepath.Dir(to), filepath.Base(to), nil
	}
	return "", "", flagFault("destination", err)
}

func unpackEntry(root *os.Root, h *tar.Header, content io.Reader) error {
	mode := h.FileInfo().Mode().Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.Mkdir(h.Name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case tar.TypeReg:
		if err := root.Remove(h.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		f, err := root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		if err = errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
			return err
		}
		return root.Chtimes(h.Name, h.ModTime, h.ModTime)
	case tar.TypeSymlink:
		if err := root.Remove(h.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return root.Symlink(h.Linkname, h.Name)
	}
	return nil
}
