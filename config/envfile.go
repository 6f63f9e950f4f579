package config

import (
	"bytes"
	"fmt"
	"strings"
)

// ParseEnvFile reads an environment file in the form of .env and of whisk.toml's env_file: a line KEY=VALUE each,
// perhaps after the word export; # begins a comment at a line's start or after a blank; '…' is literal; "…" knows
// \n, \r, \t, \\, \" and \$; both may span lines. ${VAR…} outside of '…' is replaced as Interpolate does, from lookup and then
// the lines above. KEY alone takes lookup's value, and is left away when there is none. It returns KEY=VALUE entries in
// order, or Errors with all faults; name is the file's name in them.
func ParseEnvFile(name string, data []byte, lookup Lookup) ([]string, error) {
	entries, faults := parseEnvFile(name, data, lookup)
	if len(faults) > 0 {
		return nil, faults
	}
	return entries, nil
}

// parseEnvFile returns both the entries that are right and the faults.
func parseEnvFile(name string, data []byte, lookup Lookup) ([]string, Errors) {
	p := envParser{source: newSource(name, data), lookup: lookup, seen: map[string]string{}}
	p.text = string(p.data)
	if zero := strings.IndexByte(p.text, 0); zero >= 0 {
		p.fail(zero, "an environment file is plain text", "a zero byte")
		return nil, p.errs
	}
	for p.i < len(p.text) {
		p.entry()
	}
	return p.entries, p.errs.sorted(name)
}

// ParseEnvLines reads an environment file in the form of docker's --env-file: a line KEY=VALUE each, the value taken
// as it stands, quotes and all; # begins a comment at a line's start only; KEY alone takes lookup's value, and is left
// away when there is none. It returns as ParseEnvFile does.
func ParseEnvLines(name string, data []byte, lookup Lookup) ([]string, error) {
	src := newSource(name, data)
	var entries []string
	offset := 0
	for line := range bytes.Lines(src.data) {
		text := strings.TrimLeft(strings.TrimRight(string(line), "\r\n"), " \t")
		if text != "" && text[0] != '#' {
			entry, err := ParseEnv(text, lookup)
			if err != nil {
				src.fail(offset, "", "%v", err)
			} else if strings.Contains(entry, "=") {
				entries = append(entries, entry)
			}
		}
		offset += len(line)
	}
	if len(src.errs) > 0 {
		return nil, src.errs.sorted(name)
	}
	return entries, nil
}

// envKeyLetters are what a name in .env holds; what else stands before a = is text that went astray.
const envKeyLetters = "_.-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

type envParser struct {
	*source
	text    string
	i       int // the next byte
	lookup  Lookup
	seen    map[string]string // values so far
	entries []string
}

func (p *envParser) blanks() {
	for p.i < len(p.text) && strings.IndexByte(" \t\r", p.text[p.i]) >= 0 {
		p.i++
	}
}

// restOfLine returns what is left of the line and moves behind it.
func (p *envParser) restOfLine() string {
	line, _, _ := strings.Cut(p.text[p.i:], "\n")
	p.i = min(p.i+len(line)+1, len(p.text))
	return line
}

// entry reads one line, or the lines of one quoted value.
func (p *envParser) entry() {
	p.blanks()
	if p.i == len(p.text) || p.text[p.i] == '\n' || p.text[p.i] == '#' {
		p.restOfLine()
		return
	}
	if rest := p.text[p.i:]; strings.HasPrefix(rest, "export ") || strings.HasPrefix(rest, "export\t") {
		p.i += len("export ")
		p.blanks()
	}
	start := p.i
	n := strings.IndexAny(p.text[start:], "=\n")
	if n < 0 {
		n = len(p.text) - start
	}
	key := strings.TrimRight(p.text[start:start+n], " \t\r")
	if start+n == len(p.text) || p.text[start+n] == '\n' {
		key, _, _ = strings.Cut(key, " #")
		key = strings.TrimRight(key, " \t")
	}
	err := envKey(key)
	if odd := strings.Trim(key, envKeyLetters); err == nil && odd != "" {
		err = fmt.Errorf("environment variable %q: a name is letters, digits, _, . and -", clip(key))
	}
	if err != nil {
		p.fail(start, "write KEY=VALUE, one to a line; # begins a comment", "%v", err)
		p.restOfLine()
		return
	}
	if start+n == len(p.text) || p.text[start+n] == '\n' {
		p.i = start + n
		p.restOfLine()
		if p.lookup != nil {
			if value, ok := p.lookup(key); ok {
				p.add(start, key, value)
			}
		}
		return
	}
	p.i = start + n + 1
	for p.i < len(p.text) && (p.text[p.i] == ' ' || p.text[p.i] == '\t') {
		p.i++
	}
	if value, ok := p.value(); ok {
		p.add(start, key, value)
	}
}

func (p *envParser) add(offset int, key, value string) {
	if err := envValue(key, value); err != nil {
		p.fail(offset, "", "%v", err)
		return
	}
	p.seen[key] = value
	p.entries = append(p.entries, key+"="+value)
}

// value reads a value and the rest of its line.
func (p *envParser) value() (string, bool) {
	start := p.i
	if start < len(p.text) && (p.text[start] == '\'' || p.text[start] == '"') {
		return p.quoted(p.text[start])
	}
	line := p.restOfLine()
	for i := range len(line) {
		if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			line = line[:i]
			break
		}
	}
	return p.expand(strings.TrimRight(line, " \t\r"), func(i int) int { return start + i })
}

// quoted reads a value in quotes.
func (p *envParser) quoted(quote byte) (string, bool) {
	start := p.i
	end := start + 1
	for end < len(p.text) && p.text[end] != quote {
		if p.text[end] == '\\' && quote == '"' {
			end++
		}
		end++
	}
	if end >= len(p.text) {
		p.fail(start, "", "the quote %c is not closed", quote)
		p.restOfLine() // what follows is read as lines again, so that their faults are told too
		return "", false
	}
	inside := p.text[start+1 : end]
	p.i = end + 1
	p.blanks()
	if after := p.i; after < len(p.text) && p.text[after] != '\n' && p.text[after] != '#' {
		p.fail(after, "put the whole value into the quotes", "text after the closing quote")
		p.restOfLine()
		return "", false
	}
	p.restOfLine()
	if quote == '\'' {
		return inside, true
	}
	return p.doubleQuoted(inside, start+1)
}

// doubleQuoted resolves escapes piece by piece, so that an escaped $ is not taken for a variable.
func (p *envParser) doubleQuoted(s string, at int) (string, bool) {
	var b strings.Builder
	var offsets []int // of each byte of b in the file
	write := func(c byte, from int) {
		b.WriteByte(c)
		offsets = append(offsets, at+from)
	}
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			write(s[i], i)
			continue
		}
		i++
		switch s[i] {
		case 'n':
			write('\n', i)
		case 'r':
			write('\r', i)
		case 't':
			write('\t', i)
		case '\\', '"':
			write(s[i], i)
		case '$':
			write(escapedDollar, i)
		default:
			write('\\', i-1)
			write(s[i], i)
		}
	}
	value, ok := p.expand(b.String(), func(i int) int { return offsets[i] })
	return strings.ReplaceAll(value, string(rune(escapedDollar)), "$"), ok
}

// escapedDollar stands in for a \$ while variables are replaced. A file with a zero byte was refused, so none is mistaken.
const escapedDollar = 0

// expand replaces variables; offset maps a byte of s to its place in the file.
func (p *envParser) expand(s string, offset func(int) int) (string, bool) {
	ok := true
	lookup := func(name string) (string, bool) {
		if p.lookup != nil {
			if value, found := p.lookup(name); found {
				return value, true
			}
		}
		value, found := p.seen[name]
		return value, found
	}
	value := interpolate(s, lookup, false, func(e *VariableError) {
		p.fail(offset(e.Offset), "", "%s", e.Msg)
		ok = false
	})
	return value, ok
}
