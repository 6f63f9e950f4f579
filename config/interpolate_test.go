package config

import (
	"errors"
	"strings"
	"testing"
)

func TestInterpolate(t *testing.T) {
	lookup := env("SET", "yes", "EMPTY", "", "DOLLAR", "${SET}")
	parse := func(s string) (string, error) { return Interpolate(s, lookup) }
	try(t, []small{
		{name: "nothing to do", in: "a b", want: "a b"},
		{name: "set", in: "a${SET}b", want: "ayesb"},
		{name: "twice", in: "${SET}${SET}", want: "yesyes"},
		{name: "empty", in: "a${EMPTY}b", want: "ab"},
		{name: "default not needed", in: "${SET:-no}", want: "yes"},
		{name: "default", in: "${UNSET:-no}", want: "no"},
		{name: "default for empty", in: "${EMPTY:-no}", want: "no"},
		{name: "default for unset only", in: "${EMPTY-no}", want: ""},
		{name: "plain default", in: "${UNSET-no}", want: "no"},
		{name: "empty default", in: "${UNSET:-}", want: ""},
		{name: "default with a default", in: "${A:-${B:-${SET}!}}", want: "yes!"},
		{name: "default with braces and colons", in: "${A:-http://[::1]:80}", want: "http://[::1]:80"},
		{name: "alternative", in: "${SET:+x}${EMPTY:+x}${EMPTY+y}${UNSET+z}", want: "xy"},
		{name: "needed and there", in: "${SET:?must}", want: "yes"},
		{name: "values are not read again", in: "${DOLLAR}", want: "${SET}"},
		{name: "escaped", in: "$${SET} $$$$ a$$b", want: "${SET} $$ a$b"},
		{name: "escaped in a default", in: "${A:-$${x}}", want: "${x}"},
		{name: "other dollars stay", in: "$SET cost 5$ ^a$", want: "$SET cost 5$ ^a$"},
		{name: "unset", in: "${UNSET}", says: "variable UNSET is not set"},
		{name: "needed", in: "${UNSET:?write it to .env}", says: "UNSET is not set: write it to .env"},
		{name: "needed and empty", in: "${EMPTY:?}", says: "EMPTY is not set"},
		{name: "open", in: "a ${SET", says: "is not closed"},
		{name: "open inside", in: "${A:-${SET}", says: "is not closed"},
		{name: "no name", in: "${}", says: "a variable's name"},
		{name: "digit first", in: "${1}", says: "a variable's name"},
		{name: "other operator", in: "${SET/a/b}", says: "after the name comes"},
		{name: "lone colon", in: "${SET:}", says: "after the name comes"},
		{name: "too deep", in: strings.Repeat("${A:-", 20) + strings.Repeat("}", 20), says: "nested more than"},
	}, parse, same)
	var v *VariableError
	if _, err := Interpolate("ab${SET}${A:-${UNSET}}", lookup); !errors.As(err, &v) || v.Offset != 13 {
		t.Errorf("the fault is %+v at %d, want one at 13", err, v.Offset)
	}
}

func FuzzInterpolate(f *testing.F) {
	for _, s := range []string{"${A}", "${A:-b}", "$$", "${A:-${B:-c}}", "a$", "${A:?x}", "${SET:+y}", "$${", "${"} {
		f.Add(s)
	}
	lookup := env("SET", "yes", "EMPTY", "")
	f.Fuzz(func(t *testing.T, s string) {
		var v *VariableError
		if _, err := Interpolate(s, lookup); errors.As(err, &v) && (v.Offset < 0 || v.Offset >= len(s) || s[v.Offset] != '$') {
			t.Errorf("%q: the fault %q is at %d, where no $ is", s, v.Msg, v.Offset)
		}
		if got, err := Interpolate(strings.ReplaceAll(s, "$", "$$"), nil); err != nil || got != s {
			t.Errorf("%q with every $ doubled is %q, %v", s, got, err)
		}
		// A variable's value is never read again, whatever it holds.
		if got, err := Interpolate("<${X}>", env("X", s)); err != nil || got != "<"+s+">" {
			t.Errorf("a variable with the value %q is %q, %v", s, got, err)
		}
	})
}
