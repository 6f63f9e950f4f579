package demo

import (
	"html"
	"strconv"
	"strings"
)

// markup is text of HTML that is safe to send. Functions that make it take markup: a literal in the source converts
// by itself, a string that came from elsewhere does not compile until it has gone through text.
type markup string

// text escapes what came from elsewhere.
func text(s string) markup { return markup(html.EscapeString(s)) }

func number[T int | uint32 | uint64](n T) markup { return markup(strconv.FormatUint(uint64(n), 10)) }

// el is one element: tag is its name with its attributes, `th scope="row"`.
func el(tag markup, content ...markup) markup {
	name, _, _ := strings.Cut(string(tag), " ")
	return "<" + tag + ">" + join(content...) + markup("</"+name+">")
}

func join(parts ...markup) markup {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(string(p))
	}
	return markup(b.String())
}

// each joins what f makes of every item.
func each[T any](items []T, f func(T) markup) markup {
	var b strings.Builder
	for _, item := range items {
		b.WriteString(string(f(item)))
	}
	return markup(b.String())
}
