package launcher

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCopiedHardLinksFollowNoLink: between the first copy of a file and the second name of it, somebody has put a link in the
// place of the folder that it is in.
func TestCopiedHardLinksFollowNoLink(t *testing.T) {
	from, to, outside := t.TempDir(), t.TempDir(), t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(outside, "f"), []byte("secret"), 0o600))
	must(os.Mkdir(filepath.Join(from, "a"), 0o755))
	must(os.WriteFile(filepath.Join(from, "a", "f"), nil, 0o600))
	must(os.Link(filepath.Join(from, "a", "f"), filepath.Join(from, "g")))
	must(os.Symlink(outside, filepath.Join(to, "a")))
	open := func(dir string) int {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(err)
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	var st unix.Stat_t
	must(unix.Stat(filepath.Join(from, "g"), &st))
	c := copier{top: open(to), links: map[[2]uint64]string{{st.Dev, st.Ino}: "a/f"}}
	err := c.entry(open(from), c.top, "g", "/g")
	if !errors.Is(err, unix.ELOOP) {
		t.Errorf("%v, want %v", err, unix.ELOOP)
	}
	if b, err := os.ReadFile(filepath.Join(to, "g")); err == nil {
		t.Errorf("the file outside is linked: %q", b)
	}

	// Undisturbed, they are kept.
	whole := t.TempDir()
	must(copyTree(open(from), open(whole)))
	one, err := os.Stat(filepath.Join(whole, "a", "f"))
	must(err)
	two, err := os.Stat(filepath.Join(whole, "g"))
	must(err)
	if !os.SameFile(one, two) {
		t.Error("a hard link became a file of its own")
	}
}
