package config

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func TestErrorsAreFoundOneByOne(t *testing.T) {
	path := write(t, map[string]string{FileName: "nam = 1\n[app.a]\nimage = 'x'\nprots = []\n"})
	_, err := Load(path, LoadOptions{})
	var all Errors
	if !errors.As(err, &all) || len(all) != 2 {
		t.Fatalf("the error is %v, want two faults", err)
	}
	var first *Error
	if !errors.As(err, &first) || *first != (Error{File: path, Line: 1, Column: 1, Msg: `unknown key "nam" in whisk.toml`, Hint: `did you mean "name"?`, Source: "nam = 1"}) {
		t.Errorf("the first is %+v", first)
	}
	if want := path + `:4:1: unknown key "prots" in [app.a]`; all[1].Error() != want {
		t.Errorf("the second is %q, want %q", all[1], want)
	}
}

func TestErrorsOfSeveralFiles(t *testing.T) {
	path := write(t, map[string]string{FileName: "[app.a]\nimage = 'x'\nenv_file = ['b.env', 'a.env']\ntyt = true\n", "a.env": "A B\n", "b.env": "\n${\n", ".env": "'"})
	_, err := Load(path, LoadOptions{})
	var all Errors
	if !errors.As(err, &all) {
		t.Fatalf("the error is %v", err)
	}
	var files []string
	for _, e := range all {
		files = append(files, filepath.Base(e.File))
	}
	if got := strings.Join(files, " "); got != "whisk.toml .env a.env b.env" {
		t.Errorf("faults are told for %s: %v", got, err)
	}
}

func TestDetail(t *testing.T) {
	for _, c := range []struct {
		name string
		e    Error
		want string
	}{
		{"tabs keep their width", Error{"f", 1, 3, "m", "", "\ta\tb"}, "f:1:3: m\n    \ta\tb\n    \t ^"},
		{"wide characters take two columns", Error{"f", 1, 3, "m", "", "日本語"}, "f:1:3: m\n    日本語\n        ^"},
		{"combining characters take none", Error{"f", 1, 3, "m", "", "e\u0301x"}, "f:1:3: m\n    e\u0301x\n     ^"},
		{"no escape reaches the terminal", Error{"f", 1, 2, "m", "", "\x1b[2Jx"}, "f:1:2: m\n    ·[2Jx\n     ^"},
		{"behind the end", Error{"f", 1, 9, "m", "h", "ab"}, "f:1:9: m\n    ab\n      ^\n    hint: h"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.e.Detail(); got != c.want {
				t.Errorf("it is\n%s\nwanted\n%s", got, c.want)
			}
		})
	}
}
