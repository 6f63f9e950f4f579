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

	"github.com/whisk-sandbox/whisk/launcher"
)

// pack writes a file or folder of this machine as an archive whose first entry is called ".". This user is root in a sandbox,
// and so are all others: nobody else's id means anything there.
func pack(w io.Writer, top string) error {
	out := tar.NewWriter(w)
	err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		link := ""
		switch st.Mode().Type() {
		case 0, fs.ModeDir:
		case fs.ModeSymlink:
			if link, err = os.Readlink(name); err != nil {
				return err
			}
		default: // sockets, pipes and devices are left out, as on the way back
			return nil
		}
		h, err := tar.FileInfoHeader(st, link)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, name)
		if err != nil {
			return err
		}
		h.Name, h.Format, h.Uname, h.Gname = rel, tar.FormatPAX, "", ""
		if s, ok := st.Sys().(*syscall.Stat_t); ok {
			h.Uid, h.Gid = seenInside(s.Uid, os.Getuid()), seenInside(s.Gid, os.Getgid())
		}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			return nil
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.CopyN(out, f, h.Size)
		return err
	})
	if err != nil {
		return err
	}
	return out.Close()
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
