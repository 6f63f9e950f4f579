package keeper

import "testing"

func TestPeersLiveWhereCommandsDo(t *testing.T) {
	for _, c := range []struct {
		name       string
		home, peer int
		want       bool
	}{
		{"a command", 1, 1, true},
		{"a sandbox", 1, 2, false},
		{"one that has gone", 1, 0, false},
		{"a sandbox, where the command is hidden", 0, 2, false},
		{"a command, where the command is hidden", 0, 0, true},
		{"a whisk in a container", 2, 2, true},
		{"a sandbox of a whisk in a container", 2, 3, false},
	} {
		if got := (peers{c.home}).living(c.peer); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
