package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

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
	m, err := doctor.Look(ctx, c.version, c.dirs)
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
		err = writeReport(c.out, r, colour)
	}
	if err == nil && !r.OK {
		return unfit
	}
	return err
}

// writeReport prints a line for each finding, and what to type below those that can be mended.
func writeReport(w io.Writer, r doctor.Report, colour bool) error {
	width := 0
	for _, f := range r.Findings {
		width = max(width, utf8.RuneCountInString(f.Check))
	}
	marks := map[doctor.Level]string{doctor.Problem: "31", doctor.Note: "33", doctor.OK: "32"} // red, yellow, green: ECMA-48
	var b strings.Builder
	for _, f := range r.Findings {
		mark := fmt.Sprintf("%-7s", f.Level)
		if colour {
			mark = "\x1b[" + marks[f.Level] + "m" + mark + "\x1b[0m"
		}
		line := f.Found
		if f.Lost != "" {
			line += ": " + f.Lost
		}
		fmt.Fprintf(&b, "%s  %-*s  %s\n", mark, width, f.Check, printable(line))
		if f.Mend != "" {
			fmt.Fprintf(&b, "%*s  mend: %s\n", 9+width, "", printable(f.Mend))
		}
	}
	if r.OK {
		b.WriteString("\nSandboxes run on this machine.\n")
	} else {
		b.WriteString("\nNo sandbox runs on this machine before the problem is mended. A script for root: whisk doctor --fix\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
