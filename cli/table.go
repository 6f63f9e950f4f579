package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// writeJSON prints a document as people and jq(1) read it. No control character in it reaches a terminal.
func writeJSON(w io.Writer, doc any) error {
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return fmt.Errorf("encode JSON: %w", err)
	}
	_, err = w.Write(append(calm(b), '\n'))
	return err
}

// calm escapes the control characters that encoding/json leaves: delete, and those of ISO 6429's C1 set, which a
// terminal may obey like an escape sequence.
func calm(doc []byte) []byte {
	if !wall.Up("quoting") {
		return doc
	}
	var out []byte
	for i, r := range string(doc) {
		n := utf8.RuneLen(r)
		if r == 0x7f || r >= 0x80 && r < 0xa0 {
			if out == nil {
				out = append(make([]byte, 0, len(doc)+32), doc[:i]...)
			}
			out = fmt.Appendf(out, `\u%04x`, r)
		} else if out != nil {
			out = append(out, doc[i:i+max(n, 1)]...)
		}
	}
	if out == nil {
		return doc
	}
	return out
}

// listFlags are how the output of a command that lists is chosen.
type listFlags struct {
	JSON   bool   `name:"json" help:"Print JSON."`
	Format string `enum:"table,json" default:"table" placeholder:"FORMAT" help:"table, or json: the same as --json."`
}

func (l listFlags) json() bool { return l.JSON || l.Format == "json" }

// table is rows of text in columns as wide as their widest entry. Entries come from images and apps: they are made
// printable.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer) error { return t.writeWider(w, make([]int, len(t.head))) }

// writeWider is write with columns of at least these widths, which it makes wider where a cell is. Without a head it
// goes on with a table that has been begun.
func (t *table) writeWider(w io.Writer, width []int) error {
	all := t.rows
	if t.head != nil {
		all = append([][]string{slices.Clone(t.head)}, all...)
	}
	for _, row := range all {
		for i := range row {
			row[i] = printable(row[i])
			width[i] = max(width[i], utf8.RuneCountInString(row[i]))
		}
	}
	var b strings.Builder
	for _, row := range all {
		line := ""
		for i, cell := range row {
			line += cell
			if i < len(row)-1 {
				line += strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2)
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// age is how long ago something was, in the largest unit of which there are two.
func age(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	case d < 14*24*time.Hour:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
	return fmt.Sprintf("%dw", int(d.Hours()/24/7))
}

// size is a number of bytes with three digits, in powers of 1000 as docker and podman show images.
func size(n int64) string {
	f, unit := float64(n), "B"
	for _, u := range []string{"kB", "MB", "GB", "TB"} {
		if f < 1000 {
			break
		}
		f, unit = f/1000, u
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.3g %s", f, unit)
}

// writeJSONLine prints a document on one line.
func writeJSONLine(w io.Writer, doc any) error {
	b, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("encode JSON: %w", err)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}
