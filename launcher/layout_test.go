package launcher

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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

// TestUpgradeOfWhatRuns: a migration that moves files waits until the keepers of before have let go, and one that does
// not goes on beside them.
func TestUpgradeOfWhatRuns(t *testing.T) {
	d := Dirs{Data: t.TempDir(), Run: t.TempDir()}
	for _, dir := range []string{d.Network("lan"), d.Sandbox("0123456789ab")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	r := Record{Spec: Spec{Version: SpecVersion, ID: "0123456789ab", Name: "web", Network: "lan"}, State: Running}
	if err := r.Write(d); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(d.Network("lan"), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := TakeLock(lock); err != nil {
		t.Fatal(err)
	}
	moved := 0
	steps := []migration{{apply: func(Dirs) error { return nil }, live: true}, {apply: func(Dirs) error { moved++; return nil }}}
	err = d.upgrade(steps)
	e, ok := err.(*Error)
	if !ok || e.Kind != KindOlderRuns || !strings.Contains(e.Message, "still run on it: web") || e.Hint != "nothing is lost by: whisk stop web" || strings.Contains(e.Message, "\n") {
		t.Fatalf("got %v, want one line that names web", err)
	}
	// The first step stands: its whisk can go on with the data.
	if n, err := d.layout(); n != 1 || err != nil || moved != 0 {
		t.Errorf("layout %d (%v), moved %d times", n, err, moved)
	}
	r.State = Exited
	if err := r.Write(d); err != nil {
		t.Fatal(err)
	}
	if err := d.upgrade(steps); err == nil || !strings.Contains(err.Error(), "a keeper of an earlier whisk still works on") {
		t.Errorf("a keeper that holds a network is not waited for: %v", err)
	}
	lock.Close()
	if err := d.upgrade(steps); err != nil || moved != 1 {
		t.Errorf("%v, moved %d times", err, moved)
	}
	if b, _ := os.ReadFile(d.layoutFile()); string(b) != "2\n" {
		t.Errorf("layout is %q", b)
	}
}

// TestSettle: no keeper comes to hold a network while the data is being moved, nor afterwards with its old layout in mind.
func TestSettle(t *testing.T) {
	d := Dirs{Data: t.TempDir(), Run: t.TempDir()}
	if err := d.Make(); err != nil {
		t.Fatal(err)
	}
	begun, finish := make(chan bool), make(chan bool)
	if err := os.Remove(d.layoutFile()); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		if err := d.upgrade([]migration{{apply: func(Dirs) error { close(begun); <-finish; return nil }}}); err != nil {
			t.Error(err)
		}
	})
	<-begun
	var taken atomic.Bool
	all.Go(func() {
		if err := d.Settle(func() error { taken.Store(true); return nil }); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(20 * time.Millisecond)
	if taken.Load() {
		t.Error("a keeper has taken its network in the middle of a migration")
	}
	close(finish)
	all.Wait()
	if !taken.Load() {
		t.Error("the keeper never came to hold its network")
	}
	if err := os.WriteFile(d.layoutFile(), []byte("2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Settle(func() error { t.Error("taken"); return nil }); err == nil {
		t.Error("a keeper takes a network on data of another layout")
	}
}
