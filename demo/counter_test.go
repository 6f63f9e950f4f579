package demo

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func TestCounterSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	first := time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)
	for want := uint64(1); want <= 3; want++ {
		c, err := openCounter(dir)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.add(first.Add(time.Duration(want-1) * time.Hour))
		if err != nil || got.Count != want || !got.First.Equal(first.Truncate(time.Second)) {
			t.Errorf("run %d: got %+v, %v", want, got, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "visits.json.new")); !os.IsNotExist(err) {
		t.Errorf("temporary file: got %v, want none", err)
	}
}

func TestCounterOverwritesWhatACrashLeft(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "visits.json.new"), []byte(`{"count":`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := openCounter(dir)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := c.add(time.Now()); err != nil || v.Count != 1 {
		t.Errorf("got %+v, %v, want 1", v, err)
	}
}

func TestCounterRefusesDamagedFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "visits.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openCounter(dir); err == nil {
		t.Error("got nil, want an error rather than a count from zero")
	}
}

func TestCounterKeepsValueWhenDiskRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	c := &counter{dir: dir} // the folder is not there
	if _, err := c.add(time.Now()); err == nil {
		t.Fatal("got nil, want an error")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if v, err := c.add(time.Now()); err != nil || v.Count != 1 {
		t.Errorf("after the fault: got %+v, %v, want 1", v, err)
	}
}

func TestCounterCountsEveryVisitAtOnce(t *testing.T) {
	c, err := openCounter(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const visitors, each = 8, 5
	var wg sync.WaitGroup
	for range visitors {
		wg.Go(func() {
			for range each {
				if _, err := c.add(time.Now()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := c.read().Count; got != visitors*each {
		t.Errorf("got %d, want %d", got, visitors*each)
	}
}
