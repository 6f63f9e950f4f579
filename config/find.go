package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// FileName is what a project's file is called.
const FileName = "whisk.toml"

// ErrNoProject is what errors.Is finds in Find's error when there is no whisk.toml.
var ErrNoProject = errors.New("no " + FileName)

// NoProjectError says where Find began to look.
type NoProjectError struct {
	Dir  string // absolute
	Hint string // what to do about it
}

// Error names the folder.
func (e *NoProjectError) Error() string {
	return fmt.Sprintf("%v in %q or a folder above it", ErrNoProject, e.Dir)
}

// Is makes the error an ErrNoProject.
func (e *NoProjectError) Is(target error) bool { return target == ErrNoProject }

// Find returns the absolute path of the whisk.toml in dir or in the nearest folder above it that has one. The error is
// a *NoProjectError, which is ErrNoProject, when none has.
func Find(dir string) (string, error) {
	start, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("looking for %s: %w", FileName, err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, FileName)
		info, err := os.Stat(path)
		switch {
		case err == nil && info.IsDir():
			return "", fmt.Errorf("looking for %s: %q is a folder", FileName, path)
		case err == nil:
			return path, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("looking for %s: %w", FileName, err)
		case dir == filepath.Dir(dir):
			return "", &NoProjectError{Dir: start, Hint: "write one with: whisk init"}
		}
	}
}
