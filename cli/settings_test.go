package cli

import (
	"testing"

	"github.com/whisk-sandbox/whisk/config"
)

func TestSettingsStandInForFlags(t *testing.T) {
	none := ""
	user := &config.User{Pull: "never", DetachKeys: &none}
	for _, c := range []struct {
		args       []string
		user       *config.User
		pull, keys string
	}{
		{[]string{"run", "x"}, &config.User{}, "missing", "ctrl-p,ctrl-q"},
		{[]string{"run", "x"}, user, "never", ""},
		{[]string{"run", "--pull=always", "--detach-keys=a", "x"}, user, "always", "a"},
		{[]string{"run", "--rm", "x", "--pull=always"}, user, "never", ""},
	} {
		cmd, _, err := parse(c.args, settings(c.user))
		if err != nil {
			t.Errorf("%q: %v", c.args, err)
			continue
		}
		r := cmd.(*runCmd)
		if r.Pull != c.pull || r.DetachKeys != c.keys {
			t.Errorf("%q: pull %q, detach keys %q, want %q and %q", c.args, r.Pull, r.DetachKeys, c.pull, c.keys)
		}
	}
	cmd, _, err := parse([]string{"up", "-d"}, settings(user))
	if err != nil || cmd.(*upCmd).Pull != "never" {
		t.Errorf("up: %+v, %v", cmd, err)
	}
}
