package keeper

import "testing"

func TestPeersLiveWhereCommandsDo(t *testing.T) {
	host := view{1, "         0 4294967295 4294967295\n"}
	inside := view{2, "         0          0          1\n         1          1      65536\n"}
	for _, c := range []struct {
		name       string
		home, peer view
		want       bool
	}{
		{"a command", host, host, true},
		{"a sandbox", host, inside, false},
		{"another pid namespace", host, view{2, host.ids}, false},
		{"another user namespace", host, view{1, inside.ids}, false},
		{"one that has gone", host, view{}, false},
		{"a sandbox, where the command is hidden", view{}, inside, false},
		{"a command, where the command is hidden", view{}, view{}, true},
		{"a whisk in a container", inside, inside, true},
		{"a sandbox of a whisk in a container", inside, view{3, inside.ids}, false},
	} {
		if got := (peers{c.home}).living(c.peer); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
