package launcher

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestSweepKeepsVolumesThatAreNamed sweeps anonymous volumes of every kind, all of them older than youngest.
func TestSweepKeepsVolumesThatAreNamed(t *testing.T) {
	d := Dirs{Data: t.TempDir(), Run: t.TempDir()}
	gone, there := NewID(), NewID()
	for name, owner := range map[string]string{
		"lost":      gone,  // of a command that was killed
		"handed-on": gone,  // by an earlier whisk, which wrote it down in the record only
		"own":       there, // of a start that goes on
		"left":      "",    // behind by rm
	} {
		v, _, err := ensureVolume(d, name, nil, owner)
		if err != nil {
			t.Fatal(err)
		}
		v.CreatedAt = time.Now().Add(-2 * youngest)
		if err := writeJSON(d.volumeFile(name), v, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(d.Sandbox(there), 0o700); err != nil {
		t.Fatal(err)
	}
	r := Record{Spec: Spec{Version: SpecVersion, ID: there}, State: Exited, Volumes: []string{"handed-on"}}
	if err := r.Write(d); err != nil {
		t.Fatal(err)
	}
	sweep := func(want ...string) {
		t.Helper()
		if err := Sweep(d); err != nil {
			t.Fatal(err)
		}
		left, err := Volumes(d)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, v := range left {
			names = append(names, v.Name)
		}
		if !slices.Equal(names, want) {
			t.Errorf("got %q, want %q", names, want)
		}
	}
	sweep("handed-on", "left", "own")

	// A keeper that was killed while it handed the volume on has left two records, and the new one has never run.
	next := Record{Spec: Spec{Version: SpecVersion, ID: NewID()}, State: Created, Volumes: r.Volumes}
	if err := os.MkdirAll(d.Sandbox(next.ID), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := next.Write(d); err != nil {
		t.Fatal(err)
	}
	sweep("handed-on", "left", "own")
	if now, err := ReadRecord(d, next.ID); err != nil || now.State != Exited {
		t.Errorf("got %+v, %v, want it to have ended", now, err)
	}
	if err := RemoveSandbox(d, next.ID, false); err != nil {
		t.Fatal(err)
	}
	sweep("handed-on", "left", "own")
	if err := RemoveSandbox(d, there, true); err != nil {
		t.Fatal(err)
	}
	sweep("left")
}

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

// A keeper that is killed between its lock and its folder leaves the folder, which nobody else is in the middle of making.
func TestSweepRemovesAnEmptyNetwork(t *testing.T) {
	d := Dirs{Run: t.TempDir()}
	empty, young := d.Network("empty"), d.Network("young")
	for _, dir := range []string{empty, young} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(young, "control.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := SweepNetworks(d); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(empty); !os.IsNotExist(err) {
		t.Errorf("an empty folder: %v, want it gone", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("one with something in it: %v", err)
	}
}
