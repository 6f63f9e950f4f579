package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/mend"
	"github.com/whisk-sandbox/whisk/userns"
)

// Invocation is one run of the command line.
type Invocation struct {
	Version               string   // of whisk
	Commit, Date          string   // that it was built from, RFC 3339; "" if not known
	Args                  []string // without the program's name
	Stdin, Stdout, Stderr *os.File
}

// call is what a command may touch of the process it runs in.
type call struct {
	version      string
	commit, date string   // that version was built from
	args         []string // the whole command line, for a stage to repeat
	in, out, err *os.File
	getenv       func(string) string
	dir          string // working directory
	dirs         launcher.Dirs
	inside       bool // this is a stage: root of whisk's user namespace
	single       bool // inside: only one id is mapped there
}

// command is what every command of the model is.
type command interface {
	run(ctx context.Context, c *call) error
}

// insider is a command that works on the image store, whose files belong to sub-ids.
type insider interface {
	command
	runInside(ctx context.Context, c *call) error
}

// status is an exit code that is no failure of whisk's own: nothing more is printed.
type status int

// Error implements error.
func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// Main runs one command and returns the process's exit code.
func Main(ctx context.Context, inv Invocation) int {
	c := &call{version: inv.Version, commit: inv.Commit, date: inv.Date, args: inv.Args, in: inv.Stdin, out: inv.Stdout, err: inv.Stderr, getenv: os.Getenv}
	return c.main(ctx)
}

func (c *call) main(ctx context.Context) int {
	err := c.dispatch(ctx)
	if err == nil {
		return 0
	}
	if s, ok := errors.AsType[status](err); ok {
		return int(s)
	}
	return c.fault(err)
}

func (c *call) dispatch(ctx context.Context) error {
	user, uerr := c.user()
	cmd, help, err := parse(c.args, settings(user))
	if err != nil {
		return err
	}
	if help != "" {
		_, err := c.out.WriteString(help)
		return err
	}
	if _, ok := cmd.(*versionCmd); ok { // it is what a broken installation is asked for
		return cmd.run(ctx, c)
	}
	if uerr != nil {
		return uerr
	}
	if c.dir, err = os.Getwd(); err != nil {
		return fmt.Errorf("find working directory: %w", err)
	}
	if c.dirs == (launcher.Dirs{}) {
		if c.dirs, err = launcher.FindDirs(c.getenv, os.Getuid(), user.Store); err != nil {
			return err
		}
	}
	if _, examines := cmd.(*doctorCmd); !c.inside && !examines {
		err := c.dirs.Upgrade()
		if e, ok := errors.AsType[*launcher.Error](err); ok && e.Kind == launcher.KindOlderRuns && onlyEnds(cmd) {
			err = nil
		}
		if err != nil {
			return err
		}
	}
	in, ok := cmd.(insider)
	switch {
	case !ok || !c.inside:
		return cmd.run(ctx, c)
	default:
		return in.runInside(ctx, c)
	}
}

// onlyEnds tells whether a command reads no more than records, and ends what runs or shows it: it is what makes way for
// the migration of a store that an earlier whisk's sandboxes still run on.
func onlyEnds(cmd command) bool {
	switch cmd.(type) {
	case *stopCmd, *psCmd:
		return true
	}
	return false
}

// userns finds the id map, and says once to each user when it is the lesser one.
func (c *call) userns() (userns.Map, error) {
	m, err := userns.Find(userns.Current())
	if err != nil {
		return m, err
	}
	if m.Why == nil {
		return m, nil
	}
	const said = "said-one-id"
	if c.said(said, m.Why.String()) {
		return m, nil
	}
	c.warn(m.Why.String())
	c.hint(mend.More(m.Why.Hint()))
	if err := c.dirs.Make(); err != nil {
		return m, err
	}
	c.keepSaid(said, m.Why.String())
	return m, nil
}

// said tells whether a note has been given to this user before, with these words.
func (c *call) said(note, words string) bool {
	b, err := os.ReadFile(filepath.Join(c.dirs.Data, note))
	return err == nil && string(b) == words
}

// keepSaid keeps that it has. One that cannot be kept is said again: no reason to stop.
func (c *call) keepSaid(note, words string) {
	if c.dirs.Make() == nil {
		_ = os.WriteFile(filepath.Join(c.dirs.Data, note), []byte(words), 0o600)
	}
}
