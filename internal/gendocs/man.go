package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// manPage is whisk(1), written in man(7). The date is a parameter: with today's, no release could be built twice.
//
// It is written here and not by mango-kong, which runs the examples of a command's help into its name, shows hidden
// flags, and knows no positional arguments.
func manPage(app *kong.Application, date time.Time) string {
	var b strings.Builder
	about := firstLine(app.Help)
	fmt.Fprintf(&b, ".TH %s 1 %s %s\n", strings.ToUpper(app.Name), date.Format(time.DateOnly), app.Name)
	// No hyphenation, and ragged on the right: what is typed must not be broken or stretched.
	b.WriteString(".nh\n.ad l\n")
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", app.Name, roff(about))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n.I COMMAND\n[\\fIFLAGS\\fR] [\\fIARGUMENT\\fR ...]\n", app.Name)
	b.WriteString(".SH COMMANDS\n")
	for _, child := range app.Children {
		manCommand(&b, child, app.Name)
	}
	b.WriteString(".SH FLAGS OF EVERY COMMAND\n")
	manFlags(&b, app.Node)
	for _, section := range []struct{ name, text string }{
		{"EXIT STATUS", "The app's own. 125: whisk failed. 126: the command cannot be executed. 127: the command was not found. 128+n: signal n ended the app."},
		{"FILES", "whisk.toml: the project, looked for in the working directory and above. " +
			"$XDG_DATA_HOME/whisk: images, volumes and records. $XDG_RUNTIME_DIR/whisk: running networks."},
		{"SEE ALSO", "user_namespaces(7), subuid(5), newuidmap(1), podman(1), bwrap(1)"},
	} {
		fmt.Fprintf(&b, ".SH %s\n%s\n", section.name, roff(section.text))
	}
	return b.String()
}

func manCommand(b *strings.Builder, node *kong.Node, above string) {
	if node.Hidden || node.Type != kong.CommandNode {
		return
	}
	path := above + " " + node.Name
	if len(node.Children) == 0 {
		fmt.Fprintf(b, ".SS %s\n%s\n", roff(synopsis(node, path)), roff(node.Help))
		manFlags(b, node)
		manDetail(b, node.Detail)
	}
	for _, child := range node.Children {
		manCommand(b, child, path)
	}
}

func synopsis(node *kong.Node, path string) string {
	if len(node.Flags) > 0 {
		path += " [FLAGS]"
	}
	for _, p := range node.Positional {
		name := p.Tag.PlaceHolder
		if name == "" {
			name = strings.ToUpper(p.Name)
		}
		path += " " + name
	}
	return path
}

func manFlags(b *strings.Builder, node *kong.Node) {
	for _, f := range node.Flags {
		if f.Hidden {
			continue
		}
		b.WriteString(".TP\n")
		if f.Short != 0 {
			fmt.Fprintf(b, "\\fB\\-%c\\fR, ", f.Short)
		}
		fmt.Fprintf(b, "\\fB%s\\fR", roff("--"+f.Name))
		if !f.IsBool() && !f.IsCounter() {
			fmt.Fprintf(b, " \\fI%s\\fR", roff(f.FormatPlaceHolder()))
		}
		fmt.Fprintf(b, "\n%s\n", roff(f.Help))
	}
}

// manDetail sets what help shows below the flags as it stands: it holds examples in columns.
func manDetail(b *strings.Builder, detail string) {
	if detail = strings.TrimSpace(detail); detail == "" {
		return
	}
	b.WriteString(".PP\n.nf\n")
	for line := range strings.Lines(detail) {
		b.WriteString(roff(strings.TrimRight(line, "\n")) + "\n")
	}
	b.WriteString(".fi\n")
}

// roff escapes text for a line of its own: a bare - is a hyphen, which cannot be copied to a command line
// (groff_char(7)), and a line that begins with . or ' is a request.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", " ").Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		return `\&` + text
	}
	return text
}
