package terminal

import (
	"strings"
	"testing"
)

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
