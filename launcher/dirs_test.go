package launcher

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMakeClosesWhatWasOpen(t *testing.T) {
	top := t.TempDir()
	d := Dirs{Data: filepath.Join(top, "data"), Run: filepath.Join(top, "run")}
	for _, dir := range []string{d.Data, d.Run} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Make(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{d.Data, d.Run, d.Sandboxes(), d.Networks()} {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: want mode 700, got %v, %v", dir, st.Mode(), err)
		}
	}
}

func TestFolderOfSomebodyElseIsRefused(t *testing.T) {
	dir := t.TempDir() // mine: to any other user it is somebody else's
	err := closeFolder(dir, os.Getuid()+1)
	if err == nil || !strings.Contains(err.Error(), "somebody else's") {
		t.Errorf("want a refusal, got %v", err)
	}
	if err := closeFolder("/", os.Getuid()+1); err != nil {
		t.Errorf("root's own: want none, got %v", err)
	}
}
