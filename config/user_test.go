package config

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestLoadUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	opts := LoadOptions{Home: "/home/user"}
	if got, err := LoadUser(path, opts); err != nil || !reflect.DeepEqual(*got, User{}) {
		t.Errorf("a missing file is %+v, %v", got, err)
	}
	if got, err := LoadUser("", opts); err != nil || !reflect.DeepEqual(*got, User{}) {
		t.Errorf("no file is %+v, %v", got, err)
	}
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("store = '~/big/whisk'\ndetach_keys = 'ctrl-x'\npull = 'never'\negress = 'none'\n")
	if got, err := LoadUser(path, opts); err != nil || !reflect.DeepEqual(*got, User{Store: "/home/user/big/whisk", DetachKeys: new("ctrl-x"), Pull: "never", Egress: "none"}) {
		t.Errorf("a full file is %+v, %v", got, err)
	}
	put("stor = 1\nstore = 'x'\ndetach_keys = 'ctrl'\npull = 'newer'\negress = true\n")
	_, err := LoadUser(path, opts)
	refusesAll(t, err, ":1:1: unknown key \"stor\" in config.toml", `did you mean "store"?`, ":2:9: store \"x\": want an absolute path",
		":3:15: detach key", ":4:8: pull \"newer\"", ":5:10: egress must be \"all\", \"internet\", \"none\" or a list of rules")
}

func TestUserFile(t *testing.T) {
	for _, c := range []struct{ name, xdg, home, want string }{
		{"XDG", "/x", "/home/u", "/x/whisk/config.toml"},
		{"home", "", "/home/u", "/home/u/.config/whisk/config.toml"},
		{"relative XDG", "x", "/home/u", "/home/u/.config/whisk/config.toml"},
		{"neither", "", "", ""},
	} {
		if got := UserFile(env("XDG_CONFIG_HOME", c.xdg), c.home); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
