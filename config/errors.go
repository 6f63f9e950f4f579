package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Error is one fault in a file, at the place where it is mended.
type Error struct {
	File   string // the path as it was asked for
	Line   int    // from 1
	Column int    // from 1, in characters, not bytes
	Msg    string // what is wrong, one line
	Hint   string // what to do about it, one line; may be empty
	Source string // the line of the file, without its line end
}

// Error returns file:line:column and the message, on one line.
func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Msg)
}

// Detail returns the error, the hint, the line of the file and a caret below the place, on up to four lines
// without a final line end. Characters that would move a terminal's cursor are shown as a middle dot.
func (e *Error) Detail() string {
	var b strings.Builder
	b.WriteString(e.Error())
	text, indent := excerpt(e.Source, e.Column)
	fmt.Fprintf(&b, "\n    %s\n    %s^", text, indent)
	if e.Hint != "" {
		b.WriteString("\n    hint: " + e.Hint)
	}
	return b.String()
}

// Errors are all the faults of a file, sorted by their place.
type Errors []*Error

// Error returns the details of every fault, one after the other.
func (e Errors) Error() string {
	details := make([]string, len(e))
	for i, one := range e {
		details[i] = one.Detail()
	}
	return strings.Join(details, "\n")
}

// Unwrap gives errors.As and errors.Is each fault in turn.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

// sorted orders faults by place, those of the first file first, and drops what is said twice at one place.
func (e Errors) sorted(first string) Errors {
	slices.SortStableFunc(e, func(a, b *Error) int {
		if a.File != b.File {
			switch {
			case a.File == first:
				return -1
			case b.File == first:
				return 1
			}
			return strings.Compare(a.File, b.File)
		}
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.CompactFunc(e, func(a, b *Error) bool { return *a == *b })
}

// excerptWidth is how much of a long line is shown: two lines of an 80-column terminal, less the indent.
const excerptWidth = 150

// excerpt returns a printable cut of line around column and the white space that puts a caret below that column.
func excerpt(line string, column int) (text, indent string) {
	runes := []rune(line)
	at := min(max(column-1, 0), len(runes))
	start := 0
	if len(runes) > excerptWidth && at > excerptWidth/2 {
		start = min(at-excerptWidth/2, len(runes)-excerptWidth)
	}
	runes = runes[start:min(start+excerptWidth, len(runes))]
	var t, in strings.Builder
	for i, r := range runes {
		if r != '\t' && !unicode.IsPrint(r) {
			r = '·'
		}
		t.WriteRune(r)
		if i >= at-start {
			continue
		}
		switch {
		case r == '\t':
			in.WriteByte('\t') // whatever the terminal's tab stops are, both lines share them
		case wide(r):
			in.WriteString("  ")
		case !unicode.Is(unicode.Mn, r):
			in.WriteByte(' ')
		}
	}
	return t.String(), in.String()
}

// wide reports whether a terminal gives r two columns; the blocks of Unicode's East Asian Width (UAX #11) that
// people type.
func wide(r rune) bool {
	return r >= 0x1100 && (r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf || r >= 0xac00 && r <= 0xd7a3 ||
		r >= 0xf900 && r <= 0xfaff || r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 ||
		r >= 0xffe0 && r <= 0xffe6 || r >= 0x1f300 && r <= 0x1faff || r >= 0x20000 && r <= 0x3fffd)
}

// source is a file being read: its bytes and the faults found in it.
type source struct {
	name   string
	data   []byte
	starts []int // where each line begins
	errs   Errors
}

// newSource leaves a byte order mark away, so that the first column is what an editor shows.
func newSource(name string, data []byte) *source {
	if len(data) >= 3 && data[0] == 0xef && data[1] == 0xbb && data[2] == 0xbf {
		data = data[3:]
	}
	s := &source{name: name, data: data, starts: []int{0}}
	for i, c := range data {
		if c == '\n' {
			s.starts = append(s.starts, i+1)
		}
	}
	return s
}

// fail notes a fault at a byte offset.
func (s *source) fail(offset int, hint, format string, args ...any) {
	e := s.at(offset)
	e.Msg, e.Hint = oneLine(fmt.Sprintf(format, args...)), oneLine(hint)
	s.errs = append(s.errs, e)
}

// oneLine writes control characters as Go does: a message may repeat a key or a pattern that holds some.
func oneLine(s string) string {
	if !strings.ContainsFunc(s, unicode.IsControl) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsControl(r) {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// at returns an error without a message for a byte offset.
func (s *source) at(offset int) *Error {
	offset = min(max(offset, 0), len(s.data))
	line := s.line(offset)
	start, end := s.starts[line-1], len(s.data)
	if line < len(s.starts) {
		end = s.starts[line] - 1
	}
	return &Error{
		File:   s.name,
		Line:   line,
		Column: utf8.RuneCount(s.data[start:offset]) + 1,
		Source: strings.TrimSuffix(string(s.data[start:end]), "\r"),
	}
}

// line returns the line number of a byte offset.
func (s *source) line(offset int) int {
	line, begins := slices.BinarySearch(s.starts, offset)
	if begins {
		line++
	}
	return line
}
