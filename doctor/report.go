package doctor

import (
	"fmt"
	"io"
	"strings"
)

// Write prints findings for a person: a line each, below it what is lost and the command that mends it. clean makes text
// that comes from outside of whisk fit for a terminal.
func Write(w io.Writer, findings []Finding, clean func(string) string) error {
	width := 0
	for _, f := range findings {
		width = max(width, len(f.Name))
	}
	var b strings.Builder
	for _, f := range findings {
		line := f.Found
		if f.Lost != "" {
			line += " (lost: " + f.Lost + ")"
		}
		fmt.Fprintf(&b, "%-7s  %-*s  %s\n", f.Mark, width, f.Name, clean(line))
		if f.Remedy != "" {
			fmt.Fprintf(&b, "%-7s  %-*s  %s\n", "", width, "", clean("→ "+f.Remedy))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
