package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// decoder turns nodes into values and notes every fault on the way.
type decoder struct {
	*source
	dir    string // absolute; relative paths start here
	home   string
	lookup Lookup
}

// key is one key that a table may hold, and how its value is read into a T.
type key[T any] struct {
	name string
	read func(d *decoder, n *node, into *T)
}

// table reads a table strictly: every key of it must be one of keys.
func table[T any](d *decoder, n *node, what string, keys []key[T], into *T) {
	if !d.is(n, unstable.Table, what, "a table") {
		return
	}
fields:
	for _, f := range n.fields {
		names := make([]string, len(keys))
		for i, k := range keys {
			if k.name == f.key {
				k.read(d, f.value, into)
				continue fields
			}
			names[i] = k.name
		}
		hint := didYouMean(f.key, names)
		if hint == "" {
			hint = composeWord(f.key)
		}
		d.fail(f.offset, hint, "unknown key %q in %s", clip(f.key), what)
	}
}

// composeWord returns a hint for a key of compose files that is called otherwise here, or "".
func composeWord(key string) string {
	here := ""
	switch key {
	case "volumes":
		here = "mounts"
	case "environment":
		here = "env"
	case "working_dir":
		here = "workdir"
	case "healthcheck":
		here = "ready"
	case "mem_limit":
		here = "memory"
	case "pids_limit":
		here = "pids"
	case "cpus_limit", "cpu":
		here = "cpus"
	case "stop_grace_period":
		here = "stop_timeout"
	case "services", "apps", "service":
		here = "app"
	case "networks":
		here = "network"
	case "container_name":
		return "an app's name is that of its table, [app.NAME]"
	case "build":
		return "whisk builds no images; build it elsewhere, and take it over with: whisk load -i ARCHIVE, or whisk pull"
	case "expose":
		return "apps of a project reach each other's ports anyway; leave it away"
	case "privileged":
		return "there is no such thing without root; cap_add gives single rights"
	}
	if here == "" {
		return ""
	}
	return fmt.Sprintf("it is called %q here", here)
}

// kindName says a TOML type in words.
func kindName(n *node) string {
	switch n.kind {
	case unstable.String:
		return "a string"
	case unstable.Bool:
		return "a boolean"
	case unstable.Integer:
		return "an integer"
	case unstable.Float:
		return "a number with a fraction"
	case unstable.Array:
		if n.tables {
			return "a list of tables"
		}
		return "a list"
	case unstable.Table:
		return "a table"
	}
	return "a date or time"
}

// is notes a fault unless n has the kind.
func (d *decoder) is(n *node, kind unstable.Kind, what, want string) bool {
	if n.kind == kind {
		return true
	}
	d.wrongType(n, what, want)
	return false
}

func (d *decoder) wrongType(n *node, what, want string) {
	d.fail(n.offset, "", "%s must be %s, not %s", what, want, kindName(n))
}

// expand replaces the variables of a string.
func (d *decoder) expand(n *node) (string, bool) {
	ok := true
	s := interpolate(n.text, d.lookup, true, func(e *VariableError) {
		offset := n.offset
		if n.plain {
			offset += 1 + e.Offset
		}
		d.fail(offset, "", "%s", e.Msg)
		ok = false
	})
	return s, ok
}

// str reads a string.
func (d *decoder) str(n *node, what string) (string, bool) {
	if !d.is(n, unstable.String, what, "a string") {
		return "", false
	}
	return d.expand(n)
}

// scalar reads a string or a number as it is written; want says which are meant. Digits may have underscores, as TOML allows.
func (d *decoder) scalar(n *node, what, want string, kinds ...unstable.Kind) (string, bool) {
	for _, k := range kinds {
		if n.kind != k {
			continue
		}
		switch k {
		case unstable.String:
			return d.expand(n)
		case unstable.Integer:
			i, err := strconv.ParseInt(n.text, 0, 64)
			if err != nil {
				d.fail(n.offset, "", "%s: the integer %s is out of range", what, clip(n.text))
			}
			return strconv.FormatInt(i, 10), err == nil
		case unstable.Float:
			return strings.ReplaceAll(n.text, "_", ""), true
		}
		return n.text, true
	}
	d.wrongType(n, what, want)
	return "", false
}

// boolean reads true or false.
func (d *decoder) boolean(n *node, what string, into *bool) {
	if d.is(n, unstable.Bool, what, "true or false") {
		*into = n.text == "true"
	}
}

// parsed reads a scalar in one of the small languages.
func parsed[T any](d *decoder, n *node, what, want string, parse func(string) (T, error), into *T, kinds ...unstable.Kind) {
	s, ok := d.scalar(n, what, want, kinds...)
	if !ok {
		return
	}
	v, err := parse(s)
	if err != nil {
		d.fail(n.offset, "", "%v", err)
		return
	}
	*into = v
}

// list calls each with every entry of a list.
func (d *decoder) list(n *node, what, of string, each func(*node)) {
	if !d.is(n, unstable.Array, what, "a list of "+of) {
		return
	}
	for _, item := range n.items {
		each(item)
	}
}

// words reads a command: a string cut as a shell does, or a list of words. The result is never nil.
func (d *decoder) words(n *node, what string) ([]string, bool) {
	words := []string{}
	switch n.kind {
	case unstable.String:
		s, ok := d.expand(n)
		if !ok {
			return nil, false
		}
		words, err := SplitWords(s)
		if err == nil {
			err = plainWords(words)
		}
		if err != nil {
			d.fail(n.offset, "", "%s: %v", what, err)
		}
		return words, err == nil
	case unstable.Array:
		all := true
		for _, item := range n.items {
			s, ok := d.str(item, "a word of "+what)
			if err := plainWords([]string{s}); ok && err != nil {
				d.fail(item.offset, "", "%s: %v", what, err)
				ok = false
			}
			all = all && ok
			words = append(words, s)
		}
		return words, all
	}
	d.wrongType(n, what, "a string or a list of strings")
	return nil, false
}

// plainWords refuses what execve(2) cannot pass on.
func plainWords(words []string) error {
	for _, w := range words {
		if strings.IndexByte(w, 0) >= 0 {
			return errors.New("a word cannot hold a zero byte")
		}
	}
	return nil
}

// pairs reads name-value pairs: a table, or a list of strings. Table values are strings, numbers or booleans.
func (d *decoder) pairs(n *node, what, form string, entry func(n *node, s string), pair func(f *field, value string)) {
	switch n.kind {
	case unstable.Array:
		for _, item := range n.items {
			if s, ok := d.str(item, "an entry of "+what); ok {
				entry(item, s)
			}
		}
	case unstable.Table:
		for _, f := range n.fields {
			if s, ok := d.scalar(f.value, fmt.Sprintf("%s.%s", what, clip(f.key)), "a string, number or boolean",
				unstable.String, unstable.Integer, unstable.Float, unstable.Bool); ok {
				pair(f, s)
			}
		}
	default:
		d.wrongType(n, what, "a table or a list of "+form+" strings")
	}
}
