package terminal

import (
	"strings"
	"testing"
)

func TestParseDetachKeys(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{in: "ctrl-p,ctrl-q", want: "\x10\x11"},
		{in: "ctrl-P", want: "\x10"},
		{in: "a,b", want: "ab"},
		{in: "ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", want: "\x00\x1b\x1c\x1d\x1e\x1f"},
		{in: "", want: ""},
		{in: "ctrl-1", err: `detach key "ctrl-1"`},
		{in: "ctrl-", err: `detach key "ctrl-"`},
		{in: "ab", err: `detach key "ab"`},
		{in: "a,", err: `detach key ""`},
	} {
		got, err := ParseDetachKeys(c.in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: got error %v, want %q", c.in, err, c.err)
			}
			continue
		}
		if err != nil || string(got) != c.want {
			t.Errorf("%q: got %q, %v, want %q", c.in, got, err, c.want)
		}
	}
}

func TestMatcher(t *testing.T) {
	for _, c := range []struct {
		name, keys string
		in         []string
		pass       string
		detach     bool
	}{
		{"no keys", "", []string{"abc"}, "abc", false},
		{"whole sequence", "pq", []string{"pq"}, "", true},
		{"split over reads", "pq", []string{"xp", "q"}, "x", true},
		{"held back key is passed on when another follows", "pq", []string{"p", "x"}, "px", false},
		{"the first key twice, then the second", "pq", []string{"ppq"}, "p", true},
		{"a tail that begins anew", "aab", []string{"aaab"}, "a", true},
		{"a longer tail", "abac", []string{"ababac"}, "ab", true},
		{"held back at the end", "pq", []string{"xp"}, "x", false},
		{"nothing after the sequence", "pq", []string{"apqb"}, "a", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &matcher{keys: []byte(c.keys)}
			var pass strings.Builder
			detach := false
			for _, in := range c.in {
				p, d := m.feed([]byte(in))
				pass.Write(p)
				detach = detach || d
			}
			if pass.String() != c.pass || detach != c.detach {
				t.Errorf("got %q, %v, want %q, %v", pass.String(), detach, c.pass, c.detach)
			}
		})
	}
}
