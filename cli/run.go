package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/term"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/keeper"
	"github.com/whisk-sandbox/whisk/launcher/keeper/early"
)

type runCmd struct {
	Detach      bool   `short:"d" help:"Leave the sandbox in the background and print its id."`
	Interactive bool   `short:"i" help:"Keep standard input open for the app."`
	TTY         bool   `name:"tty" short:"t" help:"Give the app a terminal."`
	DetachKeys  string `default:"ctrl-p,ctrl-q" placeholder:"KEYS" help:"Keys that leave the app running in the background; empty for none."`
	CIDFile     string `name:"cidfile" placeholder:"FILE" help:"Write the sandbox's id to a file, which must not be there."`
	sandboxFlags
	Argv []string `arg:"" optional:"" passthrough:"partial" placeholder:"IMAGE [COMMAND…]" help:"Image, and the command to run in place of the image's."`
}

// Help is what kong shows below the flags.
func (*runCmd) Help() string {
	return `Two images are built in: host is this machine's own root below a throw-away
layer, with your home hidden; demo is whisk itself.

Examples:
  whisk run --rm busybox echo hello
  whisk run -it --rm -v .:/src -w /src host
  whisk run -d --name web -p 8080:80 -v ./site:/usr/share/nginx/html:ro nginx

Exit status: the app's own; 125 when whisk failed, 126 when the command could
not be executed, 127 when it was not found, 128+n when signal n ended it.`
}

func (r *runCmd) run(ctx context.Context, c *call) error {
	user, err := c.user()
	if err != nil {
		return err
	}
	s := c.surroundings()
	s.egress = user.Egress
	spec, err := r.spec(cmp.Or(early.Network(), launcher.NewID()), s)
	if err != nil {
		return err
	}
	if err := c.networkPolicy(spec, user.Egress); err != nil {
		return err
	}
	if err := c.guard(spec); err != nil {
		return err
	}
	if err := c.limits(spec); err != nil {
		return err
	}
	keys, err := config.ParseDetachKeys(r.DetachKeys)
	if err != nil {
		return flagFault("--detach-keys", err)
	}
	if err := c.checkTerminal(r.TTY && r.Interactive && !r.Detach); err != nil {
		return err
	}
	if r.Pull == pullAlways {
		if err := c.pull(ctx, wanted(spec)); err != nil {
			return err
		}
	}
	m, err := c.userns()
	if err != nil {
		return err
	}
	cid, err := c.cidFile(r.CIDFile)
	if err != nil {
		return err
	}
	defer cid.close()
	return c.withImages(ctx, r.Pull, func() error {
		client, err := keeper.Open(ctx, c.dirs, spec.KeeperName(), m, spec.NetworkPolicy())
		if err != nil {
			return err
		}
		defer client.Close()
		if r.Detach {
			c.sayLinger()
			if err := client.RunDetached(ctx, *spec, c.warnings); err != nil {
				return err
			}
			if err := cid.write(spec.ID); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.out, spec.ID)
			return err
		}
		f := foreground{
			call: c, client: client, id: spec.ID, stdin: r.Interactive, keys: keys, log: !r.Remove,
			signal: func(ctx context.Context, _ string, n int) error { return client.Signal(ctx, spec.ID, n) },
			begin: func(ctx context.Context, s keeper.Streams, each func(keeper.Event)) error {
				return client.Run(ctx, *spec, s, func(ev keeper.Event) {
					if ev.Type == keeper.EventStarted {
						if err := cid.write(spec.ID); err != nil {
							c.warn(err.Error())
						}
					}
					each(ev)
				})
			},
		}
		return f.run(ctx)
	})
}

// spec is what is asked of a keeper.
func (r *runCmd) spec(id string, s surroundings) (*launcher.Spec, error) {
	spec, err := r.sandboxFlags.spec(id, r.Argv, s)
	if err != nil {
		return nil, err
	}
	spec.App.TTY, spec.Stdin = r.TTY, r.Interactive
	return spec, nil
}

// checkTerminal refuses an interactive terminal where there is none, as docker does: an app would wait for keys that
// cannot come.
func (c *call) checkTerminal(wanted bool) error {
	if wanted && !term.IsTerminal(int(c.in.Fd())) {
		return usage("leave out -t", "-i and -t: standard input is not a terminal")
	}
	return nil
}

// warnings prints what a keeper gives up.
func (c *call) warnings(ev keeper.Event) {
	if ev.Type == keeper.EventWarning {
		c.warn(ev.Text)
	}
}

// The values of --pull.
const (
	pullAlways  = "always"
	pullMissing = "missing"
	pullNever   = "never"
)

// withImages carries out a request, and once more after pulling when its images are not there.
func (c *call) withImages(ctx context.Context, policy string, request func() error) error {
	err := request()
	missing, ok := errors.AsType[*launcher.Error](err)
	if !ok || missing.Kind != launcher.KindImageMissing || policy == pullNever || len(missing.Images) == 0 {
		return err
	}
	if err := c.pull(ctx, missing.Images); err != nil {
		return err
	}
	return request()
}

// wanted are the images that sandboxes ask for, each once.
func wanted(specs ...*launcher.Spec) []launcher.Wanted {
	var all []launcher.Wanted
	for _, s := range specs {
		if w := (launcher.Wanted{Image: s.App.Image, Platform: s.App.Platform}); !slices.Contains(all, w) {
			all = append(all, w)
		}
	}
	return all
}

// pull fetches images inside the user namespace, in as many stages as there are platforms.
func (c *call) pull(ctx context.Context, images []launcher.Wanted) error {
	var platforms []string
	refs := map[string][]string{}
	for _, w := range images {
		if builtIn(w.Image) {
			continue
		}
		if refs[w.Platform] == nil {
			platforms = append(platforms, w.Platform)
		}
		refs[w.Platform] = append(refs[w.Platform], w.Image)
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for _, platform := range platforms {
		args := []string{"pull"}
		if platform != "" {
			args = append(args, "--platform="+platform)
		}
		if err := c.stage(ctx, null, append(append(args, "--"), refs[platform]...)); err != nil {
			return err
		}
	}
	return nil
}

// builtIn tells whether an image needs no store.
func builtIn(ref string) bool { return ref == "host" || ref == "demo" }

// networkPolicy says what the network lets out that a sandbox joins, if it comes into being with that: what the project says
// whose network it is, else what the sandbox's flag says, else what the user says.
func (c *call) networkPolicy(s *launcher.Spec, user string) error {
	if s.Network == s.ID || s.Network == "none" {
		return nil
	}
	policy, err := launcher.ProjectPolicy(c.dirs, s.Network)
	if err != nil {
		return err
	}
	s.NetworkEgress = policy
	if policy == "" && s.Egress == "" {
		s.NetworkEgress = user
	}
	return nil
}
