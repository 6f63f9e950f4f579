package config

import (
	"fmt"
	"strings"
)

// Lookup finds a variable, as os.LookupEnv does.
type Lookup func(name string) (value string, ok bool)

// VariableError says what is wrong with a ${…} in a string.
type VariableError struct {
	Offset int    // in bytes, where the $ stands
	Msg    string // one line
}

// Error returns the message.
func (e *VariableError) Error() string { return e.Msg }

// Interpolate replaces variables as sh(1) and compose files do: ${VAR}; ${VAR:-default} and ${VAR-default} (the
// former also where VAR is empty); ${VAR:+text} and ${VAR+text}; ${VAR:?message} and ${VAR?message}. Defaults may hold
// variables themselves. $$ is a $; any other $ stays, so that patterns and shell scripts need no care. The first
// variable that has neither value nor default is the error, a *VariableError. A nil lookup knows no variable.
func Interpolate(s string, lookup Lookup) (string, error) {
	var first *VariableError
	out := interpolate(s, lookup, true, func(e *VariableError) {
		if first == nil {
			first = e
		}
	})
	if first != nil {
		return "", first
	}
	return out, nil
}

// maxNesting bounds ${A:-${B:-…}}, which nobody writes deeper than two.
const maxNesting = 16

// interpolate reports every fault and goes on. Without dollars, $$ stays as it is.
func interpolate(s string, lookup Lookup, dollars bool, fault func(*VariableError)) string {
	in := interpolation{lookup: lookup, dollars: dollars, fault: fault}
	return in.expand(s, 0, 0)
}

type interpolation struct {
	lookup  Lookup
	dollars bool
	fault   func(*VariableError)
}

// expand replaces the variables of s, which begins at offset at of the whole string.
func (in *interpolation) expand(s string, at, depth int) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '$' || i+1 == len(s):
			b.WriteByte(s[i])
		case s[i+1] == '$':
			b.WriteByte('$')
			i++
			if !in.dollars {
				b.WriteByte('$')
			}
		case s[i+1] == '{':
			end := closing(s, i+2)
			if end < 0 {
				in.fail(at+i, "${ is not closed; write $$ for a $ that means itself")
				return b.String()
			}
			b.WriteString(in.variable(s[i+2:end], at+i, depth))
			i = end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

func (in *interpolation) fail(offset int, format string, args ...any) {
	in.fault(&VariableError{Offset: offset, Msg: fmt.Sprintf(format, args...)})
}

// closing returns where the } of the ${ before i stands, or -1.
func closing(s string, i int) int {
	for depth := 1; i < len(s); i++ {
		switch {
		case s[i] == '$' && i+1 < len(s) && s[i+1] == '$':
			i++
		case s[i] == '$' && i+1 < len(s) && s[i+1] == '{':
			depth++
			i++
		case s[i] == '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// variable returns what stands for the inside of a ${…} at an offset.
func (in *interpolation) variable(inside string, at, depth int) string {
	n := 0
	for n < len(inside) && (inside[n] == '_' || isAlnum(inside[n])) {
		n++
	}
	name, rest := inside[:n], inside[n:]
	if n == 0 || inside[0] >= '0' && inside[0] <= '9' {
		in.fail(at, "${%s}: a variable's name is letters, digits and underscores, not a digit first; write $$ for a $ that means itself", clip(inside))
		return ""
	}
	if depth == maxNesting {
		in.fail(at, "variables are nested more than %d deep", maxNesting)
		return ""
	}
	var value string
	var set bool
	if in.lookup != nil {
		value, set = in.lookup(name)
	}
	if rest == "" {
		if !set {
			in.fail(at, "variable %s is not set; set it, write it to .env, or give a default: ${%s:-…}", name, name)
		}
		return value
	}
	filled := set
	op := rest[0]
	if op == ':' && len(rest) > 1 {
		op, rest, filled = rest[1], rest[1:], value != ""
	}
	word, wordAt := rest[1:], at+2+len(inside)-len(rest)+1
	switch {
	case op == '-' && !filled, op == '+' && filled:
		return in.expand(word, wordAt, depth+1)
	case op == '-', op == '?' && filled:
		return value
	case op == '+':
		return ""
	case op == '?' && word == "":
		in.fail(at, "variable %s is not set", name)
		return ""
	case op == '?':
		in.fail(at, "variable %s is not set: %s", name, in.expand(word, wordAt, depth+1))
		return ""
	}
	in.fail(at, "${%s}: after the name comes :-default, :+text, :?message or }", clip(inside))
	return ""
}
