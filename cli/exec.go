package cli

import (
	"context"
	"path/filepath"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/keeper"
)

type execCmd struct {
	Interactive bool     `short:"i" help:"Keep standard input open for the command."`
	TTY         bool     `name:"tty" short:"t" help:"Give the command a terminal."`
	Detach      bool     `short:"d" help:"Start the command and do not wait for it."`
	Env         []string `short:"e" sep:"none" placeholder:"KEY[=VALUE]" help:"Set an environment variable; a key alone takes its value from here."`
	EnvFile     []string `sep:"none" placeholder:"FILE" help:"Read environment variables from a file."`
	User        string   `short:"u" placeholder:"USER[:GROUP]" help:"User, by name or number, that the command runs as."`
	Workdir     string   `short:"w" placeholder:"PATH" help:"Working directory in the sandbox."`
	File        string   `placeholder:"FILE" help:"The project's whisk.toml."`
	Argv        []string `arg:"" optional:"" passthrough:"partial" placeholder:"SANDBOX COMMAND…" help:"Sandbox and command."`
}

// Help is what kong shows below the flags.
func (*execCmd) Help() string {
	return `Examples:
  whisk exec -it web sh
  whisk exec -u postgres db psql -c 'select 1'`
}

func (e *execCmd) run(ctx context.Context, c *call) error {
	if len(e.Argv) == 0 {
		return usage("whisk exec --help", "a sandbox is missing")
	}
	if len(e.Argv) == 1 {
		return usage("whisk exec -it "+e.Argv[0]+" sh", "a command is missing")
	}
	if e.Workdir != "" && !filepath.IsAbs(e.Workdir) {
		return usage("", "--workdir: %q is not an absolute path", e.Workdir)
	}
	if err := c.checkTerminal(e.TTY && e.Interactive && !e.Detach); err != nil {
		return err
	}
	env, err := environment(e.EnvFile, e.Env, c.surroundings())
	if err != nil {
		return err
	}
	project, err := c.projectName(e.File)
	if err != nil {
		return err
	}
	r, err := launcher.Find(c.dirs, e.Argv[0], project)
	if err != nil {
		return err
	}
	client, err := c.keeperOf(ctx, r)
	if err != nil {
		return err
	}
	defer client.Close()
	spec := launcher.ExecSpec{
		Version: launcher.SpecVersion, Argv: e.Argv[1:], Env: env, User: e.User, Workdir: e.Workdir, TTY: e.TTY, Stdin: e.Interactive,
	}
	if e.Detach {
		return client.ExecDetached(ctx, r.ID, spec, c.warnings)
	}
	f := foreground{
		call: c, client: client, id: r.ID, stdin: e.Interactive,
		begin: func(ctx context.Context, s keeper.Streams, each func(keeper.Event)) error {
			return client.Exec(ctx, r.ID, spec, s, each)
		},
		signal: func(ctx context.Context, exec string, n int) error { return client.SignalExec(ctx, r.ID, exec, n) },
	}
	return f.run(ctx)
}
