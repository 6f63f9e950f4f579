package config

import (
	"bytes"
	"errors"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// node is a TOML value with its place. go-toml's decoder tells the place of the first fault only; whisk tells all of
// them, so it reads go-toml's syntax tree itself.
type node struct {
	kind   unstable.Kind // String, Bool, Integer, Float, a date, Array or Table
	offset int           // of the value; of the table's last key
	text   string        // a scalar's value
	plain  bool          // text stands in the file letter for letter, one byte after offset
	items  []*node       // Array
	fields []*field      // Table, in the order of the file
	index  map[string]*field
	closed bool // written as { … } or [ … ]: nothing may be added from elsewhere
	header bool // named by a [header] of its own
	dotted bool // made by a dotted key: no [header] may name it again
	tables bool // [[name]]: an array of tables
}

// field is a key with its value.
type field struct {
	key    string
	offset int // of the key
	value  *node
}

func newTable(offset int) *node {
	return &node{kind: unstable.Table, offset: offset, index: map[string]*field{}}
}

func (n *node) add(f *field) {
	n.fields = append(n.fields, f)
	n.index[f.key] = f
}

// document builds the tree of a TOML file.
type document struct {
	*source
	root   *node
	table  *node // where key = value lines go; nil below a [header] that was refused
	broken bool  // a syntax fault hides what comes after it: what seems missing may not be
	base   int   // offset in the source of what the parser was given
	parser unstable.Parser
}

// parseDocument reads the whole file. After a syntax fault it goes on behind it, so that faults elsewhere are told as
// well: at the next line where that surely begins anew, otherwise at the next [header].
func parseDocument(src *source) *document {
	d := &document{source: src, root: newTable(0)}
	d.table = d.root
	for {
		d.parser.Reset(src.data[d.base:])
		for d.parser.NextExpression() {
			d.expression(d.parser.Expression())
		}
		err := d.parser.Error()
		if err == nil {
			break
		}
		d.broken = true
		at := d.base
		var perr *unstable.ParserError
		if errors.As(err, &perr) {
			at = min(d.offsetOf(perr.Highlight), len(src.data))
		}
		d.syntaxFault(at, err)
		if line := bytes.IndexByte(src.data[at:], '\n'); line >= 0 && d.onOneLine(at) {
			d.base = at + line + 1
			continue
		}
		d.table = nil
		if at > d.base && src.data[at-1] == '\n' && at < len(src.data) && src.data[at] == '[' {
			d.base = at // a list that is not closed runs into a header, which is right in itself
			continue
		}
		next := bytes.Index(src.data[at:], []byte("\n["))
		if next < 0 {
			break
		}
		d.base = at + next + 1
	}
	return d
}

// syntaxFault words what go-toml's parser found. A value without quotes is the slip that it words worst.
func (d *document) syntaxFault(at int, err error) {
	msg := err.Error()
	if at < len(d.data) && (strings.HasPrefix(msg, "expected keyword") || strings.HasSuffix(msg, "at start of value")) {
		if c := d.data[at]; isAlnum(c) || bytes.IndexByte([]byte("./~_$*@"), c) >= 0 || c >= 0x80 {
			d.fail(at, `a string stands in quotes, "like this"`, "a value that is no string, number, true or false")
			return
		}
	}
	if strings.HasSuffix(msg, "after array value") && at > 0 && d.data[at-1] == '\n' {
		d.fail(at, "", "the list above is not closed: expected ',' or ']'")
		return
	}
	d.fail(at, "", "%s", msg)
}

// onOneLine reports whether the faulty expression surely began on the line of the fault: a key stands before it, and
// every bracket between is closed.
func (d *document) onOneLine(at int) bool {
	line := d.data[bytes.LastIndexByte(d.data[:at], '\n')+1 : at]
	key, value, ok := bytes.Cut(line, []byte("="))
	if !ok || len(bytes.Trim(key, " \t.-_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")) > 0 {
		return false
	}
	open := 0
	for _, c := range value {
		switch c {
		case '[', '{':
			open++
		case ']', '}':
			open--
		}
	}
	return open == 0 && !bytes.Contains(value, []byte(`"""`)) && !bytes.Contains(value, []byte("'''"))
}

// conform lets go-toml's decoder look for what the syntax tree does not show, such as impossible dates, when nothing else is
// wrong. Its time grows with the square of a table's length, which only a file of nonsense makes felt.
func (d *document) conform() {
	if len(d.errs) > 0 {
		return
	}
	var whole map[string]any
	err := toml.Unmarshal(d.data, &whole)
	var derr *toml.DecodeError
	if err == nil {
		return
	}
	at := 0
	if errors.As(err, &derr) {
		row, column := derr.Position()
		for line := 1; line < row; line++ {
			at += bytes.IndexByte(d.data[at:], '\n') + 1
		}
		at += column - 1
	}
	d.fail(at, "", "%s", strings.TrimPrefix(err.Error(), "toml: "))
}

// offsetOf returns the place of a slice that the parser cut from the file.
func (d *document) offsetOf(part []byte) int {
	return d.base + cap(d.parser.Data()) - cap(part)
}

func (d *document) place(n *unstable.Node) int { return d.base + int(n.Raw.Offset) }

// expression takes one line of the file: a header or key = value.
func (d *document) expression(e *unstable.Node) {
	switch e.Kind {
	case unstable.KeyValue:
		if d.table != nil {
			d.keyValue(d.table, e)
		}
	case unstable.Table, unstable.ArrayTable:
		d.table = d.open(keys(e), e.Kind == unstable.ArrayTable)
	}
}

// keys copies a dotted key out of the parser's arena.
func keys(n *unstable.Node) []*unstable.Node {
	var all []*unstable.Node
	for it := n.Key(); it.Next(); {
		all = append(all, it.Node())
	}
	return all
}

// open returns the table that a header names, or nil after noting why it cannot be.
func (d *document) open(path []*unstable.Node, array bool) *node {
	table := d.root
	for i, k := range path {
		key, last := string(k.Data), i == len(path)-1
		f := table.index[key]
		if f == nil {
			f = &field{key: key, offset: d.place(k), value: newTable(d.place(k))}
			if last && array {
				f.value = &node{kind: unstable.Array, offset: d.place(k), tables: true}
			}
			table.add(f)
			if last {
				return d.header(f.value, d.place(k))
			}
			table = f.value
			continue
		}
		v := f.value
		switch {
		case v.tables && last && array, v.tables && !last:
			if last {
				return d.header(v, d.place(k))
			}
			table = v.items[len(v.items)-1]
			continue
		case v.kind != unstable.Table || v.closed || last && (array || v.header || v.dotted):
			d.fail(d.place(k), "", "%q is already given on line %d", key, d.line(f.offset))
			return nil
		case last:
			v.offset = d.place(k)
			return d.header(v, d.place(k))
		}
		table = v
	}
	return table
}

// header marks what a header has named, and returns the table that takes its keys.
func (d *document) header(v *node, offset int) *node {
	v.header = true
	if !v.tables {
		return v
	}
	t := newTable(offset)
	t.header = true
	v.items = append(v.items, t)
	return t
}

// keyValue puts one key = value into a table.
func (d *document) keyValue(table *node, e *unstable.Node) {
	path := keys(e)
	for _, k := range path[:len(path)-1] {
		key := string(k.Data)
		f := table.index[key]
		if f == nil {
			f = &field{key: key, offset: d.place(k), value: newTable(d.place(k))}
			f.value.dotted = true
			table.add(f)
		}
		if f.value.kind != unstable.Table || f.value.closed || !f.value.dotted {
			d.fail(d.place(k), "", "%q is already given on line %d", key, d.line(f.offset))
			return
		}
		table = f.value
	}
	k := path[len(path)-1]
	if f := table.index[string(k.Data)]; f != nil {
		d.fail(d.place(k), "", "%q is already given on line %d", f.key, d.line(f.offset))
		return
	}
	table.add(&field{key: string(k.Data), offset: d.place(k), value: d.value(e.Value(), d.afterEquals(k))})
}

// afterEquals returns where the value behind a key begins: the tree does not tell it for arrays.
func (d *document) afterEquals(key *unstable.Node) int {
	i := d.place(key) + int(key.Raw.Length)
	for i < len(d.data) && bytes.IndexByte([]byte(" \t="), d.data[i]) >= 0 {
		i++
	}
	return i
}

// value copies a value out of the parser's arena. An array's place is given, for the tree does not tell it.
func (d *document) value(v *unstable.Node, offset int) *node {
	n := &node{kind: v.Kind, offset: offset}
	switch v.Kind {
	case unstable.Array:
		n.closed = true
		for it := v.Children(); it.Next(); {
			if it.Node().Kind != unstable.Comment {
				n.items = append(n.items, d.value(it.Node(), offset))
			}
		}
	case unstable.InlineTable:
		n = newTable(d.place(v))
		for it := v.Children(); it.Next(); {
			if it.Node().Kind == unstable.KeyValue {
				d.keyValue(n, it.Node())
			}
		}
		n.closed = true
	default:
		n.offset, n.text = d.place(v), string(v.Data)
		raw := d.parser.Raw(v.Raw)
		n.plain = v.Kind == unstable.String && len(raw) == len(v.Data)+2 && string(raw[1:len(raw)-1]) == n.text
	}
	return n
}
