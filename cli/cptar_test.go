package cli

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAttackALinkSwappedInToWhatIsCopied exchanges files for links to a secret while they are packed, as a sandbox does that
// the folder is shared with.
//
// Wall: copies of what was looked at.
func TestAttackALinkSwappedInToWhatIsCopied(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	x, y := filepath.Join(dir, "x"), filepath.Join(dir, "y")
	if err := os.WriteFile(x, []byte("inside"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, y); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				if err := unix.Renameat2(unix.AT_FDCWD, x, unix.AT_FDCWD, y, unix.RENAME_EXCHANGE); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	files, links := 0, 0
	for range 3000 {
		for _, top := range []string{dir, x} {
			var b bytes.Buffer
			if err := pack(&b, top); err != nil {
				continue // swapped too often
			}
			for in := tar.NewReader(&b); ; {
				h, err := in.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(in)
				if err != nil {
					t.Fatal(err)
				}
				switch {
				case h.Typeflag == tar.TypeSymlink:
					links++
				case h.Typeflag == tar.TypeReg:
					files++
					if string(text) != "inside" {
						t.Fatalf("%s holds %q", h.Name, text)
					}
				}
			}
		}
	}
	close(stop)
	<-stopped
	if files == 0 || links == 0 {
		t.Errorf("%d files and %d links: there was no race", files, links)
	}
}

func TestPackingAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(name, []byte("inside"), 0o640); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := pack(&b, name); err != nil {
		t.Fatal(err)
	}
	h, err := tar.NewReader(&b).Next()
	if err != nil || h.Name != "." || h.Size != 6 || h.Mode != 0o640 {
		t.Errorf("%+v, %v; want a file . of 6 bytes", h, err)
	}
}
