package cli

import (
	"context"
	"fmt"
	"runtime"
)

type versionCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Help is what kong shows below the flags.
func (*versionCmd) Help() string {
	return `Example:
  whisk version --json`
}

func (v *versionCmd) run(_ context.Context, c *call) error {
	if v.JSON {
		return writeJSON(c.out, map[string]string{"version": c.version, "commit": c.commit, "date": c.date, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
	}
	text := "whisk " + c.version
	if c.commit != "" {
		text += fmt.Sprintf(" (%.12s, %s)", c.commit, c.date)
	}
	_, err := fmt.Fprintln(c.out, text)
	return err
}
