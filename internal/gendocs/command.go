package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// command is what a shell needs to know of one command of the kong model. Hidden ones, and hidden flags, are not in it.
type command struct {
	path  string   // "whisk volume ls" is " volume ls", whisk itself ""
	name  string   // the last word of path
	help  string   // one line
	flags []option // its own and those of the commands above it, by name
	subs  []command
}

type option struct {
	long   string
	short  rune // 0: none
	help   string
	value  bool     // takes one
	values []string // the only ones it takes, if there are so few
}

// commands reads the model. An alias is a command of its own: a shell knows no difference.
func commands(node *kong.Node) command {
	return read(node, "", node.Name, nil)
}

func read(node *kong.Node, path, name string, above []option) command {
	c := command{path: path, name: name, help: firstLine(node.Help), flags: slices.Clone(above)}
	for _, f := range node.Flags {
		if f.Hidden {
			continue
		}
		own := option{long: f.Name, short: f.Short, help: firstLine(f.Help), value: !f.IsBool() && !f.IsCounter()}
		for v := range strings.SplitSeq(f.Enum, ",") {
			if v = strings.TrimSpace(v); v != "" {
				own.values = append(own.values, v)
			}
		}
		c.flags = append(c.flags, own)
		if neg := f.Tag.Negatable; neg != "" {
			if neg == "_" { // kong's word for the default prefix
				neg = "no-" + f.Name
			}
			c.flags = append(c.flags, option{long: neg, help: "do not: " + own.help})
		}
	}
	slices.SortStableFunc(c.flags, func(a, b option) int { return cmp.Compare(a.long, b.long) })
	for _, child := range node.Children {
		if child.Hidden || child.Type != kong.CommandNode {
			continue
		}
		for _, word := range append([]string{child.Name}, child.Aliases...) {
			c.subs = append(c.subs, read(child, path+" "+word, word, c.flags))
		}
	}
	return c
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return strings.TrimSuffix(line, ".")
}

// all returns c and every command below it.
func (c command) all() []command {
	list := []command{c}
	for _, sub := range c.subs {
		list = append(list, sub.all()...)
	}
	return list
}

// words returns every flag as it is typed.
func (f option) words() []string {
	words := []string{"--" + f.long}
	if f.short != 0 {
		words = append(words, "-"+string(f.short))
	}
	return words
}
