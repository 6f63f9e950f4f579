package cli

import (
	"os"

	"github.com/alecthomas/kong"

	"github.com/whisk-sandbox/whisk/config"
)

// user reads the user's own config.toml. With an error it is an empty one.
func (c *call) user() (*config.User, error) {
	home := c.getenv("HOME")
	user, err := config.LoadUser(config.UserFile(os.LookupEnv, home), config.LoadOptions{LookupEnv: os.LookupEnv, Home: home})
	if err != nil {
		return &config.User{}, err
	}
	return user, nil
}

// settings stand in for flags that are not given.
func settings(user *config.User) kong.Resolver {
	return kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		switch {
		case flag.Name == "pull" && user.Pull != "":
			return user.Pull, nil
		case flag.Name == "detach-keys" && user.DetachKeys != nil:
			return *user.DetachKeys, nil
		}
		return nil, nil
	})
}
