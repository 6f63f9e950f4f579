package cli

import (
	"context"
	"io"

	"golang.org/x/term"

	"github.com/whisk-sandbox/whisk/doctor"
)

type doctorCmd struct {
	JSON            bool `name:"json" xor:"what" help:"Print JSON."`
	Fix             bool `name:"fix" xor:"what" help:"Print a script for root that mends what root can mend; run nothing."`
	AppArmorProfile bool `name:"apparmor-profile" xor:"what" help:"Print an AppArmor profile that lets this whisk make user namespaces."`
}

// Help is what kong shows below the flags.
func (*doctorCmd) Help() string {
	return `The exit code is 0 when sandboxes can run on this machine, and 1 when they cannot.

Example:
  whisk doctor
  whisk doctor --fix > mend.sh   # read it, then: sudo sh mend.sh`
}

// unfit is the exit code of a machine on which no sandbox runs.
const unfit = status(1)

func (d *doctorCmd) run(ctx context.Context, c *call) error {
	m, err := doctor.Look(ctx, doctor.Build{Version: c.version, Date: c.date}, c.dirs)
	if err != nil {
		return err
	}
	r := doctor.Examine(m)
	switch {
	case d.JSON:
		err = writeJSON(c.out, r)
	case d.Fix:
		_, err = io.WriteString(c.out, r.Script())
		return err
	case d.AppArmorProfile:
		_, err = io.WriteString(c.out, r.Profile())
		return err
	default:
		colour := c.getenv("NO_COLOR") == "" && c.getenv("TERM") != "dumb" && term.IsTerminal(int(c.out.Fd()))
		_, err = io.WriteString(c.out, r.Text(printable, colour))
	}
	if err == nil && !r.OK {
		return unfit
	}
	return err
}
