package cli

import (
	"fmt"
	"os"

	"golang.org/x/term"
)

// palette are the colours that apps are told apart by: the six of ECMA-48 that are neither black nor white, so that
// they show on either background, red last as it looks like a fault.
const palette = "625341"

// prefixer puts an app's name before its lines.
type prefixer struct {
	colour bool
	width  int
	seen   map[string]int // app to its place in the palette
}

// newPrefixer aligns the names of these apps. Colour is for a terminal whose user does not refuse it (no-color.org).
func newPrefixer(out *os.File, getenv func(string) string, names []string) *prefixer {
	p := &prefixer{seen: map[string]int{}}
	p.colour = getenv("NO_COLOR") == "" && getenv("TERM") != "dumb" && term.IsTerminal(int(out.Fd()))
	for _, name := range names {
		p.width = max(p.width, len(printable(name)))
		p.seen[name] = len(p.seen)
	}
	return p
}

// prefix is what stands before each line of an app.
func (p *prefixer) prefix(name string) string {
	text := fmt.Sprintf("%-*s | ", p.width, printable(name))
	if !p.colour {
		return text
	}
	n, ok := p.seen[name]
	if !ok {
		n = len(p.seen)
		p.seen[name] = n
	}
	return fmt.Sprintf("\x1b[3%cm%s\x1b[0m", palette[n%len(palette)], text)
}
