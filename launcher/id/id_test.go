package id

import (
	"regexp"
	"testing"
)

func TestNew(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{12}$`)
	seen := map[string]bool{}
	for range 20_000 { // every 280th would be a number
		s := New()
		if !form.MatchString(s) || !regexp.MustCompile(`[a-f]`).MatchString(s) || seen[s] {
			t.Fatalf("got %q, %t", s, seen[s])
		}
		seen[s] = true
	}
}
