package config

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestSecretsOfTheUser(t *testing.T) {
	const home = "/home/user"
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"nothing said", "", nil},
		{"one's own", "secrets = ['~/keys', '/srv/keys/']", []string{"/home/user/keys", "/srv/keys"}},
		{"none", "secrets = []", []string{}},
		{"more", "secrets = ['default', '~/keys']", append(DefaultSecrets(home), "/home/user/keys")},
	} {
		path := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := LoadUser(path, LoadOptions{Home: home})
		if err != nil || !reflect.DeepEqual(got.Secrets, c.want) {
			t.Errorf("%s: %q, %v; want %q", c.name, got.Secrets, err, c.want)
		}
	}
}

func TestSecretsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte("secrets = ['keys', '../x', '~other/x']\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := LoadUser(path, LoadOptions{Home: "/home/user"})
	refusesAll(t, err, `secrets: "keys" is neither an absolute path`, `secrets: "../x"`, `secrets: "~other/x"`)
}
