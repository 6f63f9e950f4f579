package keeper

import "testing"

func TestOOMFault(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit int64
		code  int
		kills int64
		want  string
	}{
		{name: "killed at its limit", limit: 64 << 20, code: 137, kills: 1, want: "the command was killed: out of its memory limit of 64m"},
		{name: "killed by a group above", code: 137, kills: 2, want: "the command was killed: out of memory"},
		{name: "killed by somebody", limit: 64 << 20, code: 137},
		{name: "ended by itself beside one that was killed", limit: 64 << 20, code: 1, kills: 1},
	} {
		got := oomFault("the command", "web", c.limit, c.code, c.kills)
		switch {
		case c.want == "" && got != nil:
			t.Errorf("%s: %v, want nothing", c.name, got)
		case c.want != "" && (got == nil || got.Message != c.want || got.Exit != c.code || got.Hint == ""):
			t.Errorf("%s: %+v, want %q with a hint and exit code %d", c.name, got, c.want, c.code)
		}
	}
}
