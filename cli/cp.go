package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/keeper"
)

type cpCmd struct {
	Archive bool   `short:"a" help:"Into a sandbox: keep owners, you being root there; without, all becomes root's."`
	File    string `placeholder:"FILE" help:"The project's whisk.toml."`
	Source  string `arg:"" placeholder:"SOURCE" help:"SANDBOX:PATH, a path of this machine, or - for a tar archive on standard input."`
	Dest    string `arg:"" placeholder:"DEST" help:"The same; - writes a tar archive to standard output."`
}

// Help is what kong shows below the flags.
func (*cpCmd) Help() string {
	return `One of the two is in a sandbox, running or stopped, whose volumes and mounts are
seen as there. A folder that is there takes the source in; SOURCE/. stands for
what is in a folder. Links are copied as links. What comes out is yours.

Examples:
  whisk cp web:/etc/nginx/nginx.conf .
  whisk cp ./site/. web:/usr/share/nginx/html
  whisk cp db:/var/lib/postgresql/data - > data.tar`
}

// copyEnd is one end of a copy.
type copyEnd struct{ sandbox, path string }

// parseCopyEnd tells SANDBOX:PATH from a path of this machine as docker does: one that begins with / or . is the latter.
func parseCopyEnd(s string) copyEnd {
	name, at, ok := strings.Cut(s, ":")
	if !ok || s == "" || s[0] == '/' || s[0] == '.' || name == "" {
		return copyEnd{path: s}
	}
	return copyEnd{name, at}
}

// contents tells whether a path stands for what is in a folder: it ends in "/.".
func contents(p string) bool { return p == "." || strings.HasSuffix(p, "/.") }

func (p *cpCmd) run(ctx context.Context, c *call) error {
	from, to := parseCopyEnd(p.Source), parseCopyEnd(p.Dest)
	in := from.sandbox == ""
	if in == (to.sandbox == "") {
		return usage("whisk cp web:/file . or whisk cp file web:/", "exactly one of source and destination must be in a sandbox")
	}
	end := to
	if !in {
		end = from
	}
	if end.path == "" {
		return usage("", "%s: a path is missing behind the colon", end.sandbox)
	}
	if !path.IsAbs(end.path) {
		end.path = "/" + end.path // as docker: from the root, not from the working directory
	}
	project, err := c.projectName(p.File)
	if err != nil {
		return err
	}
	r, err := launcher.Find(c.dirs, end.sandbox, project)
	if err != nil {
		return err
	}
	m, err := c.userns()
	if err != nil {
		return err
	}
	client, err := keeper.Open(ctx, c.dirs, r.KeeperName(), m, "")
	if err != nil {
		return err
	}
	defer client.Close()
	if in {
		return p.copyIn(ctx, c, client, r.ID, from.path, end.path)
	}
	return p.copyOut(ctx, c, client, r.ID, end.path, to.path)
}

func (p *cpCmd) copyOut(ctx context.Context, c *call, client *keeper.Client, id, from, to string) error {
	as := path.Base(path.Clean(from))
	if contents(from) || as == "/" {
		as = "."
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		err := p.take(c, r, as == ".", to)
		r.Close() // the keeper need write no more
		done <- err
	}()
	err = client.CopyOut(ctx, id, from, as, w)
	taken := <-done
	if fault, ok := errors.AsType[*launcher.Error](taken); ok {
		return fault
	}
	if err != nil {
		return err
	}
	return taken
}

func (p *cpCmd) take(c *call, r io.Reader, contents bool, to string) error {
	if to == "-" {
		_, err := io.Copy(c.out, r)
		return err
	}
	if !filepath.IsAbs(to) {
		to = filepath.Join(c.dir, to) + strings.Repeat("/", btoi(strings.HasSuffix(to, "/")))
	}
	return unpackTo(r, contents, to)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (p *cpCmd) copyIn(ctx context.Context, c *call, client *keeper.Client, id, from, to string) error {
	target := launcher.CopyIn{Path: to, Owners: p.Archive}
	if from == "-" {
		// The archive's entries go into a folder that is there, with their owners.
		target.Path, target.Folder, target.Owners = strings.TrimSuffix(to, "/"), true, true
		if target.Path == "" {
			target.Path = "/"
		}
		return client.CopyIn(ctx, id, target, c.in)
	}
	if !filepath.IsAbs(from) {
		from = filepath.Join(c.dir, from) + map[bool]string{true: "/."}[contents(from)]
	}
	st, err := os.Lstat(filepath.Clean(from))
	if err != nil {
		return flagFault("source", err)
	}
	target.Folder = st.IsDir()
	if !contents(from) {
		target.Name = filepath.Base(filepath.Clean(from))
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		err := pack(w, filepath.Clean(from))
		w.Close()
		done <- err
	}()
	err = client.CopyIn(ctx, id, target, r)
	packed := <-done
	if packed != nil && !errors.Is(packed, unix.EPIPE) {
		return fmt.Errorf("read %s: %w", from, packed)
	}
	return err
}
