package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/whisk-sandbox/whisk/config"
)

type initCmd struct {
	Force bool `short:"f" help:"Overwrite a whisk.toml that is there."`
}

// Help is what kong shows below the flags.
func (*initCmd) Help() string {
	return `The file is written to the working directory. Its comments tell every key.

Example:
  whisk init && whisk up`
}

func (i *initCmd) run(_ context.Context, c *call) error {
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if i.Force {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(filepath.Join(c.dir, config.FileName), flags, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return usage("whisk init --force", "%s is there already", config.FileName)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", config.FileName, err)
	}
	_, err = f.Write(config.Template(c.dir))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", config.FileName, err)
	}
	c.warnf("wrote %s; edit it, then: whisk up", config.FileName)
	return nil
}
