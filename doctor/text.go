package doctor

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Text is the report for people: a line for each finding, and below those that can be mended what to type. Text that
// came from files of the machine goes through clean, which keeps it on its line and off the terminal's controls.
func (r Report) Text(clean func(string) string, colour bool) string {
	width := 0
	for _, f := range r.Findings {
		width = max(width, utf8.RuneCountInString(f.Check))
	}
	marks := map[Level]string{Problem: "31", Note: "33", OK: "32"} // red, yellow, green: ECMA-48
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
		fmt.Fprintf(&b, "%s  %-*s  %s\n", mark, width, f.Check, clean(line))
		if f.Mend != "" {
			fmt.Fprintf(&b, "%*s  mend: %s\n", 9+width, "", clean(f.Mend))
		}
		if f.Then != "" {
			fmt.Fprintf(&b, "%*s  then: %s\n", 9+width, "", f.Then)
		}
	}
	flags, only := r.flags()
	switch {
	case only:
		b.WriteString("\nSandboxes run on this machine only with " + strings.Join(flags, " ") + ".\n")
	case r.OK:
		b.WriteString("\nSandboxes run on this machine.\n")
	default:
		what := "sandbox"
		if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Level == Problem && strings.HasPrefix(f.Lost, noSandbox) }) {
			what = "sandbox of an image"
		}
		b.WriteString("\nNo " + what + " runs on this machine before the problem is mended.")
		if r.forRoot() {
			b.WriteString(" A script for root: whisk doctor --fix")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// flags are those with which sandboxes start in spite of all problems; only tells whether there are such.
func (r Report) flags() (flags []string, only bool) {
	for _, f := range r.Findings {
		if f.Level != Problem {
			continue
		}
		if f.flag == "" {
			return nil, false
		}
		flags = append(flags, f.flag)
	}
	return flags, len(flags) > 0
}

// forRoot tells whether the script mends a problem.
func (r Report) forRoot() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Level == Problem && len(f.repair.commands(r.Distro, r.exe)) > 0
	})
}
