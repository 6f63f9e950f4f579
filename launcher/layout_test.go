package launcher

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestUpgrade(t *testing.T) {
	for _, c := range []struct{ name, layout, want, err string }{
		{name: "unnumbered", want: "1\n"},
		{name: "current", layout: "1\n", want: "1\n"},
		{name: "of a later whisk", layout: "2\n", want: "2\n", err: "was written by a later whisk: it has layout 2, and this one knows up to 1"},
		{name: "not a number", layout: "x", want: "x", err: "does not hold a number"},
		{name: "empty", layout: "\n", want: "\n", err: "does not hold a number"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Dirs{Data: t.TempDir(), Run: t.TempDir()}
			keep := filepath.Join(d.Volumes(), "v", "data")
			if err := os.MkdirAll(keep, 0o700); err != nil {
				t.Fatal(err)
			}
			if c.layout != "" {
				if err := os.WriteFile(d.layoutFile(), []byte(c.layout), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					err := d.Upgrade()
					if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
						t.Errorf("got %v, want %q", err, c.err)
					}
				})
			}
			all.Wait()
			if got, err := os.ReadFile(d.layoutFile()); err != nil || string(got) != c.want {
				t.Errorf("layout is %q, %v, want %q", got, err, c.want)
			}
			if _, err := os.Stat(keep); err != nil {
				t.Error(err)
			}
			if entries, _ := os.ReadDir(d.Data); len(entries) != 2 {
				t.Errorf("left behind: %v", entries)
			}
		})
	}
}

// TestLayoutOfNewData: nothing is made before there is something to keep.
func TestLayoutOfNewData(t *testing.T) {
	d := Dirs{Data: filepath.Join(t.TempDir(), "whisk"), Run: t.TempDir()}
	if err := d.Upgrade(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(d.Data); err == nil {
		t.Error("Upgrade has made the folder")
	}
	if err := d.Make(); err != nil {
		t.Fatal(err)
	}
	if n, err := d.layout(); n != Layout || err != nil {
		t.Errorf("layout of new data is %d, %v", n, err)
	}
}
