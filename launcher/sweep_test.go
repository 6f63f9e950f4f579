package launcher

import (
	"os"
	"path/filepath"
	"testing"
)

// TestSweepLeavesTheNextKeeperAlone sweeps with the lock of a keeper that has left meanwhile: the folder is the next
// keeper's by then.
func TestSweepLeavesTheNextKeeperAlone(t *testing.T) {
	d := Dirs{Run: t.TempDir()}
	dir := d.Network("busy")
	keep := func() *os.File {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := TakeLock(f); err != nil {
			t.Fatal(err)
		}
		return f
	}
	first := keep()
	sweeper, err := os.OpenFile(first.Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sweeper.Close()
	sweepUnlocked(dir, sweeper)
	if !Held(d, "busy") {
		t.Fatal("the lock of a keeper was swept away")
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	first.Close()
	next := keep()
	sweepUnlocked(dir, sweeper)
	if !Held(d, "busy") {
		t.Fatal("the lock of the next keeper was swept away")
	}
	next.Close()
	if err := SweepNetworks(d); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder of a keeper that is gone: %v", err)
	}
}
