package cli

import (
	"context"

	"github.com/whisk-sandbox/whisk/image"
)

type pullCmd struct {
	inStore
	Platform  string   `placeholder:"OS/ARCH" help:"Platform of the image."`
	TLSVerify bool     `name:"tls-verify" default:"true" help:"Refuse registries without a good certificate; --tls-verify=false for plain http and any certificate. Registries on this machine's loopback may speak http in any case."`
	Quiet     bool     `short:"q" help:"Do not show progress."`
	Images    []string `arg:"" name:"image" placeholder:"IMAGE…" help:"References: nginx is docker.io/library/nginx:latest."`
}

// Help is what kong shows below the flags.
func (*pullCmd) Help() string {
	return `The images' ids are printed. Logins are those of docker login and podman login.

Examples:
  whisk pull nginx:1.27
  whisk pull --platform linux/arm64 registry.example.org/team/app@sha256:…`
}

func (p *pullCmd) runInside(ctx context.Context, c *call) error {
	refs := make([]image.Reference, len(p.Images))
	for i, name := range p.Images {
		var err error
		if refs[i], err = image.ParseReference(name); err != nil {
			return err
		}
	}
	return c.withStore(func(store *image.Store) error {
		for _, ref := range refs {
			if !p.Quiet {
				c.warnf("pulling %s", ref.Familiar())
			}
			img, err := store.Pull(ctx, ref, image.PullOptions{Platform: p.Platform, TLSVerify: &p.TLSVerify, Progress: c.progress(p.Quiet)})
			if err != nil {
				return err
			}
			if err := printIDs(c.out, img); err != nil {
				return err
			}
		}
		return nil
	})
}
