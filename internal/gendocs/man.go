package main

import (
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	mangokong "github.com/alecthomas/mango-kong"
	"github.com/muesli/roff"
)

// manPage is whisk(1). The date is a parameter because mango would write today's, and no release could be built twice.
// It takes hidden flags out of the model, which mango-kong does not look at.
func manPage(app *kong.Application, date time.Time) string {
	hide(app.Node)
	page := mangokong.NewManPage(1, app)
	page.WithSection("Exit status", "The app's own. 125: whisk failed. 126: the command cannot be executed. 127: the command was not found. 128+n: signal n ended the app.")
	page.WithSection("Files", "whisk.toml: the project, looked for in the working directory and above. "+
		"$XDG_DATA_HOME/whisk: images, volumes and records. $XDG_RUNTIME_DIR/whisk: running networks.")
	page.WithSection("See also", "user_namespaces(7), subuid(5), newuidmap(1), podman(1), bwrap(1)")
	lines := strings.SplitAfter(page.Build(&document{Document: roff.NewDocument(), date: date}), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, `\fB`) {
			// A bare - is a hyphen, which cannot be copied to a command line, groff_char(7).
			lines[i] = strings.ReplaceAll(line, "-", `\-`)
		}
	}
	return strings.Join(lines, "")
}

func hide(node *kong.Node) {
	node.Flags = slices.DeleteFunc(node.Flags, func(f *kong.Flag) bool { return f.Hidden })
	for _, child := range node.Children {
		hide(child)
	}
}

// document is a roff document with a date of its own, and without roff 0.1's fault of reading text as a format.
type document struct {
	*roff.Document
	date time.Time
}

// Heading implements mango.Builder.
func (d *document) Heading(section uint, title, description string, _ time.Time) {
	d.Document.Heading(section, title, description, d.date)
}

// Text implements mango.Builder.
func (d *document) Text(text string) { d.Document.Text(strings.ReplaceAll(text, "%", "%%")) }

// TextBold implements mango.Builder.
func (d *document) TextBold(text string) { d.Document.TextBold(strings.ReplaceAll(text, "%", "%%")) }
