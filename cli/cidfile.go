package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/whisk-sandbox/whisk/launcher"
)

// cidFile is the file of --cidfile, where one was asked for: there and empty from before the start, as docker has it, and
// removed if nothing has started.
type cidFile struct {
	f       *os.File
	written bool
}

// cidFile makes the file; name may be empty.
func (c *call) cidFile(name string) (*cidFile, error) {
	if name == "" {
		return &cidFile{}, nil
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(c.dir, name)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, &launcher.Error{Message: fmt.Sprintf("--cidfile: %s is there already", name), Hint: "whisk rm -f $(cat " + name + "); rm " + name, Exit: launcher.ExitWhisk}
	}
	if err != nil {
		return nil, flagFault("--cidfile", err)
	}
	return &cidFile{f: f}, nil
}

func (c *cidFile) write(id string) error {
	if c.f == nil || c.written {
		return nil
	}
	c.written = true
	if _, err := c.f.WriteString(id); err != nil {
		return flagFault("--cidfile", err)
	}
	return nil
}

func (c *cidFile) close() {
	if c.f == nil {
		return
	}
	if !c.written {
		_ = os.Remove(c.f.Name())
	}
	c.f.Close()
}
