package cli

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/alecthomas/kong"
)

// helpWidth is where text is wrapped: the narrowest terminal in wide use.
const helpWidth = 80

// overview is the help of whisk itself.
func overview(all []entry) string {
	var b strings.Builder
	b.WriteString("Run apps from container images as yourself: no root, no daemon.\n\nusage: whisk COMMAND [FLAGS] [ARGUMENTS]\n")
	group := ""
	for _, e := range all {
		if e.group != group {
			group = e.group
			fmt.Fprintf(&b, "\n%s:\n", group)
		}
		row(&b, e.name, 10, strings.TrimSuffix(e.help, "."))
	}
	b.WriteString(`
First steps:
  whisk demo                          two apps that need no image and no network
  whisk run -it host                  this machine's own root, with a throw-away layer
  whisk run -p 8080:80 nginx          an image, with its own address and a forwarded port
  whisk init && whisk up              a project of several apps

whisk COMMAND --help tells more of each.
`)
	return b.String()
}

// helpFor is the help of one command.
func helpFor(node *kong.Node) string {
	var b strings.Builder
	wrap(&b, 0, node.Help)
	fmt.Fprintf(&b, "\nusage: %s\n", synopsis(node))
	if len(node.Children) > 0 {
		b.WriteString("\nCommands:\n")
		for _, child := range node.Children {
			row(&b, child.Name, 10, strings.TrimSuffix(child.Help, "."))
		}
	}
	group := "-"
	for _, g := range flagGroups(node) {
		if g.name != group {
			group = g.name
			fmt.Fprintf(&b, "\n%s:\n", group)
		}
		for _, f := range g.flags {
			row(&b, flagForm(f), 28, strings.TrimSuffix(flagHelp(f), "."))
		}
	}
	if node.Detail != "" {
		b.WriteString("\n" + strings.TrimSpace(node.Detail) + "\n")
	}
	return b.String()
}

// synopsis is the line that says how a command is called.
func synopsis(node *kong.Node) string {
	s := commandPath(node)
	if len(node.Children) > 0 {
		return s + " COMMAND"
	}
	if len(node.Flags) > 0 {
		s += " [FLAGS]"
	}
	for _, p := range node.Positional {
		s += " " + p.Tag.PlaceHolder
	}
	return s
}

// flagGroup is the flags under one heading.
type flagGroup struct {
	name  string
	flags []*kong.Flag
}

// flagGroups sorts a command's flags by heading, both in the order in which they are written down.
func flagGroups(node *kong.Node) []flagGroup {
	var groups []flagGroup
next:
	for _, f := range node.Flags {
		if f.Hidden {
			continue
		}
		name := "Flags"
		if f.Group != nil {
			name = f.Group.Title
		}
		for i := range groups {
			if groups[i].name == name {
				groups[i].flags = append(groups[i].flags, f)
				continue next
			}
		}
		groups = append(groups, flagGroup{name, []*kong.Flag{f}})
	}
	return groups
}

// flagForm is a flag as it is typed: "-p, --publish PORT".
func flagForm(f *kong.Flag) string {
	s := "    "
	if f.Short != 0 {
		s = "-" + string(f.Short) + ", "
	}
	s += "--" + f.Name
	if !f.IsBool() {
		s += " " + f.FormatPlaceHolder()
	}
	return s
}

// flagHelp is a flag's help with its default.
func flagHelp(f *kong.Flag) string {
	help := f.Help
	if f.HasDefault && f.Default != "" && !f.IsBool() {
		help = strings.TrimSuffix(help, ".") + " (default " + f.Default + ")."
	}
	return help
}

// row prints a name and what it means, which begins at a column and is wrapped there.
func row(b *strings.Builder, name string, column int, text string) {
	b.WriteString("  " + name)
	at := 2 + utf8.RuneCountInString(name)
	if at > column {
		b.WriteByte('\n')
		at = 0
	}
	b.WriteString(strings.Repeat(" ", column+2-at))
	wrap(b, column+2, text)
}

// wrap prints text in lines of at most helpWidth, of which all but the first are indented.
func wrap(b *strings.Builder, indent int, text string) {
	at := indent
	for i, word := range strings.Fields(text) {
		if i > 0 && at+1+utf8.RuneCountInString(word) > helpWidth {
			b.WriteString("\n" + strings.Repeat(" ", indent))
			at = indent
		} else if i > 0 {
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += utf8.RuneCountInString(word)
	}
	b.WriteByte('\n')
}
