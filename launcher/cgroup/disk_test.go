package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeDisks is a machine with the disk sda (8:0), its partition sda1 (8:1) and what is none.
func fakeDisks(t *testing.T) Disks {
	t.Helper()
	sys := t.TempDir()
	for file, text := range map[string]string{
		"devices/pci0/block/sda/dev": "8:0\n", "devices/pci0/block/sda/sda1/dev": "8:1\n", "devices/pci0/block/sda/sda1/partition": "1\n",
	} {
		file = filepath.Join(sys, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(sys, "dev/block"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"8:0": "../../devices/pci0/block/sda", "8:1": "../../devices/pci0/block/sda/sda1"} {
		if err := os.Symlink(to, filepath.Join(sys, "dev/block", link)); err != nil {
			t.Fatal(err)
		}
	}
	return Disks{FS: os.DirFS(sys), Stat: func(path string) (uint32, uint32, bool, error) {
		switch path {
		case "/dev/sda":
			return 8, 0, true, nil
		case "/dev/sda1":
			return 8, 1, true, nil
		case "/dev/null":
			return 1, 3, false, nil
		}
		return 0, 0, false, fs.ErrNotExist
	}}
}

func TestDiskNumber(t *testing.T) {
	d := fakeDisks(t)
	for path, want := range map[string]string{"/dev/sda": "8:0", "/dev/sda1": "8:0"} {
		if got, err := d.Number(path); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", path, got, err, want)
		}
	}
	if _, err := d.Number("/dev/null"); err == nil || !strings.Contains(err.Error(), `"/dev/null" is no block device`) {
		t.Errorf("/dev/null: %v", err)
	}
	if _, err := d.Number("/dev/sdz"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("/dev/sdz: %v", err)
	}
}

// TestGroupWritesIO: what is asked of a group comes to stand in its files.
func TestGroupWritesIO(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"io.max", "io.weight", "memory.max", "memory.swap.max"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g := &Group{dir: dir, controllers: []string{"io", "memory"}}
	limits := Limits{Weight: 505, Disks: []Disk{{Path: "/dev/sda1", ReadBPS: 10 << 20, WriteIOPS: 500}}}
	if err := g.limit(limits, fakeDisks(t)); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"io.max": "8:0 rbps=10485760 wbps=max riops=max wiops=500", "io.weight": "default 5000", "memory.max": "max"} {
		if got, err := os.ReadFile(filepath.Join(dir, file)); string(got) != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", file, got, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "io.bfq.weight")); err == nil {
		t.Error("a file that the kernel does not have was made")
	}
	err := g.limit(Limits{Disks: []Disk{{Path: "/dev/null", ReadBPS: 1}}}, fakeDisks(t))
	if err == nil || !strings.Contains(err.Error(), "no block device") {
		t.Errorf("a rate for what is no disk: %v", err)
	}
	// A weight that no scheduler of this kernel keeps is not kept in silence.
	if err := os.Remove(filepath.Join(dir, "io.weight")); err != nil {
		t.Fatal(err)
	}
	if err := g.limit(Limits{Weight: 100}, fakeDisks(t)); err == nil || !strings.Contains(err.Error(), "a share of the disks' time cannot be kept: this kernel has no io.weight") {
		t.Errorf("a weight without a file for it: %v", err)
	}
	g.controllers = []string{"memory"}
	if err := g.limit(limits, fakeDisks(t)); err == nil || !strings.Contains(err.Error(), "has no io controller") {
		t.Errorf("no io controller: %v", err)
	}
}
