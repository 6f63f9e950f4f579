package cli

import (
	"os"
	"slices"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
)

// guard fills in what mounts must not bring into sandboxes, where there are mounts of this machine's files.
func (c *call) guard(specs ...*launcher.Spec) error {
	mounts := func(s *launcher.Spec) bool {
		return s.App.Home != "" || slices.ContainsFunc(s.App.Mounts, func(m config.Mount) bool { return m.Kind == config.MountBind })
	}
	if !slices.ContainsFunc(specs, mounts) {
		return nil
	}
	home := c.getenv("HOME")
	user, err := c.user()
	if err != nil {
		return err
	}
	g := launcher.Guard{Own: launcher.OtherDirs(c.getenv, os.Getuid()), Home: home, Secrets: user.Secrets}
	if g.Secrets == nil {
		g.Secrets = config.DefaultSecrets(home)
	}
	for _, s := range specs {
		s.Guard = g
	}
	return nil
}
