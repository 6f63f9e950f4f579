package config

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestFindWalksUp(t *testing.T) {
	path := write(t, map[string]string{FileName: "", "a/b/c": "", "inner/whisk.toml": "", "inner/x/y": ""})
	dir := filepath.Dir(path)
	for from, want := range map[string]string{".": path, "a/b": path, "inner": filepath.Join(dir, "inner", FileName), "inner/x": filepath.Join(dir, "inner", FileName)} {
		if got, err := Find(filepath.Join(dir, from)); err != nil || got != want {
			t.Errorf("from %s: %s, %v; want %s", from, got, err, want)
		}
	}
	t.Chdir(filepath.Join(dir, "a"))
	if got, err := Find("b"); err != nil || got != path {
		t.Errorf("from a relative folder: %s, %v; want %s", got, err, path)
	}
}

func TestFindWithoutProject(t *testing.T) {
	const nowhere = "/proc" // a folder above which people leave no project, unlike the one for temporary files
	_, err := Find(nowhere)
	var none *NoProjectError
	if !errors.Is(err, ErrNoProject) || !errors.As(err, &none) || none.Dir != nowhere || none.Hint == "" {
		t.Errorf("the error is %#v, want a NoProjectError for %s", err, nowhere)
	}
	refuses(t, nowhere, `no whisk.toml in "/proc" or a folder above it`, err)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, FileName), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = Find(dir)
	refuses(t, dir, "is a folder", err)
}

func TestLoadWithoutFile(t *testing.T) {
	dir := t.TempDir()
	_, err := Load(filepath.Join(dir, FileName), LoadOptions{})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file is %v", err)
	}
	_, err = Load(dir, LoadOptions{})
	refuses(t, dir, "is not a regular file", err)
}
