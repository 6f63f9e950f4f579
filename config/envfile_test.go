package config

import (
	"strings"
	"testing"
)

func TestParseEnvFile(t *testing.T) {
	lookup := env("SET", "yes")
	parse := func(s string) ([]string, error) { return ParseEnvFile(".env", []byte(s), lookup) }
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"nothing", "", nil},
		{"plain", "A=1\nB=2", []string{"A=1", "B=2"}},
		{"blanks and empty lines", "\n  A = 1 \n\n\tB=\n", []string{"A=1", "B="}},
		{"comments", "# a\nA=1 # b\nB=1#c\n  # d\nC=# e", []string{"A=1", "B=1#c", "C="}},
		{"export", "export A=1\nexport\tB=2\nexported=3", []string{"A=1", "B=2", "exported=3"}},
		{"single quotes", "A='b # \\n ${X} \"'  # c", []string{`A=b # \n ${X} "`}},
		{"double quotes", `A="b # \"c\" \\ \n\t\x"`, []string{"A=b # \"c\" \\ \n\t\\x"}},
		{"several lines", "KEY=\"-----BEGIN\nabc\n-----END\"\nB='1\n2'", []string{"KEY=-----BEGIN\nabc\n-----END", "B=1\n2"}},
		{"quotes inside", `A=b"c"'d'`, []string{`A=b"c"'d'`}},
		{"variables", "A=1\nB=${A}2\nC=\"${SET}${D:-x}\"\nE=\\${A}", []string{"A=1", "B=12", "C=yesx", `E=\1`}},
		{"dollars", "A=pa$$word\nB=\"\\${A} \\$\"\nC=$A", []string{"A=pa$$word", "B=${A} $", "C=$A"}},
		{"from the environment", "SET\nUNSET\nexport SET # c", []string{"SET=yes", "SET=yes"}},
		{"Windows line ends", "A=1\r\nB=\"2\"\r\n\r\n", []string{"A=1", "B=2"}},
		{"byte order mark", "\ufeffA=1", []string{"A=1"}},
		{"odd keys", "a.b-c=1", []string{"a.b-c=1"}},
		{"value with =", "A=b=c", []string{"A=b=c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parse(c.in)
			if err != nil || strings.Join(got, "|") != strings.Join(c.want, "|") {
				t.Errorf("it is %q, %v; want %q", got, err, c.want)
			}
		})
	}
	for _, c := range []struct{ name, in, want string }{
		{"no name", "A=1\n  =2", ".env:2:3: environment variable without a name"},
		{"blank in the name", "A B=1", `.env:1:1: environment variable "A B"`},
		{"a colon", "A:=1", `.env:1:1: environment variable "A:": a name is letters`},
		{"open quote", "A=1\nB=\"x\nC=2", ".env:2:3: the quote \" is not closed"},
		{"text after the quote", "A='b'c", ".env:1:6: text after the closing quote"},
		{"unset variable", "A=ä ${X}", ".env:1:5: variable X is not set"},
		{"unset variable in quotes", `A="\n${X}"`, ".env:1:6: variable X is not set"},
		{"zero byte", "A=1\nB=\x00", ".env:2:3: a zero byte"},
		{"two faults", "A B\nC=${D}", ".env:2:3: variable D is not set"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse(c.in)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v; want %q", err, c.want)
			}
		})
	}
}

func TestParseEnvLines(t *testing.T) {
	got, err := ParseEnvLines("f", []byte("# c\nA='1' # ${X}\n\n  B=2 \r\nSET\nUNSET\n"), env("SET", "yes"))
	if want := "A='1' # ${X}|B=2 |SET=yes"; err != nil || strings.Join(got, "|") != want {
		t.Errorf("it is %q, %v; want %q", got, err, want)
	}
	_, err = ParseEnvLines("f", []byte("A=1\nB C=2\n"), nil)
	refusesAll(t, err, `f:2:1: environment variable "B C"`)
}

func refusesAll(t *testing.T, err error, want ...string) {
	t.Helper()
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("the error is %v; want %q in it", err, w)
		}
	}
}

func FuzzParseEnvFile(f *testing.F) {
	for _, s := range []string{"A=1\nexport B='2' # c\n", "A=\"\\n${B:-x}\\$\"", "A='\n'", "A", "=", "\"", "A=\"\\"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := ParseEnvFile("f", data, env("SET", "yes"))
		if faults, ok := err.(Errors); err != nil && (!ok || len(faults) == 0) {
			t.Fatalf("the error is a %T without faults: %v", err, err)
		} else if ok {
			placed(t, faults)
		}
		// What came out is an environment, and survives being written down in quotes.
		var b strings.Builder
		for _, e := range entries {
			key, value, ok := strings.Cut(e, "=")
			if !ok || key == "" || strings.ContainsRune(e, 0) {
				t.Fatalf("%q is no entry of an environment", e)
			}
			b.WriteString(key + "=\"" + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(value) + "\"\n")
		}
		again, err := ParseEnvFile("again", []byte(b.String()), nil)
		if err != nil || strings.Join(again, "\x00") != strings.Join(entries, "\x00") {
			t.Errorf("%q is %q; written down it is %q, %v", data, entries, again, err)
		}
	})
}

// placed checks that faults are sorted and point into their lines.
func placed(t *testing.T, faults Errors) {
	t.Helper()
	for i, e := range faults {
		if e.Line < 1 || e.Column < 1 || e.Column > len([]rune(e.Source))+2 || strings.ContainsAny(e.Msg+e.Hint, "\n\r") || e.Msg == "" {
			t.Errorf("the fault %+v points nowhere or has several lines", *e)
		}
		if i > 0 && faults[i-1].File == e.File && (faults[i-1].Line > e.Line || faults[i-1].Line == e.Line && faults[i-1].Column > e.Column) {
			t.Errorf("%v stands before %v", faults[i-1], e)
		}
		_ = e.Detail()
	}
}
