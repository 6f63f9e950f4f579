package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/keeper"
)

type uninstallCmd struct {
	Purge bool `help:"Remove images, volumes, sandboxes and settings, too."`
	Force bool `short:"f" help:"Kill sandboxes that run."`
	Yes   bool `short:"y" help:"Do not ask."`
}

// Help is what kong shows below the flags.
func (*uninstallCmd) Help() string {
	return `Removes the program from your home directory, where install.sh has put it, with
its manual page and completions. What a package has installed stays: it is for
the package manager to remove. Without --purge, all that whisk keeps for you
stays.

Examples:
  whisk uninstall
  whisk uninstall --purge --yes`
}

// goneWait bounds the wait for keepers whose sandboxes have ended.
const goneWait = 10 * time.Second

func (u *uninstallCmd) run(ctx context.Context, c *call) error {
	program := c.program()
	doomed := program
	if u.Purge {
		kept, err := c.kept()
		if err != nil {
			return err
		}
		doomed = append(kept, program...)
	}
	switch {
	case len(doomed) > 0:
	case u.Purge:
		return nil // nothing is left
	default:
		return usage("whisk uninstall --purge removes what it keeps for you", "this whisk was not installed into your home directory, so it is not for it to remove")
	}
	stores, err := c.stores()
	if err != nil {
		return err
	}
	if err := u.idle(stores); err != nil {
		return err
	}
	if err := u.ask(c, doomed); err != nil {
		return err
	}
	for _, s := range stores {
		if err := s.halt(ctx); err != nil {
			return err
		}
		if u.Purge {
			if err := s.purge(ctx); err != nil {
				return err
			}
		}
	}
	for _, path := range program {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("uninstall: %w", err)
		}
	}
	for _, path := range doomed {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintln(c.out, "removed", path)
		}
	}
	if !u.Purge {
		if _, err := os.Lstat(c.dirs.Data); err == nil {
			c.hint("images, volumes and sandboxes are still in " + c.dirs.Data)
		}
	} else if len(program) == 0 {
		c.hint("the program itself is not in your home directory: it is for whoever installed it to remove")
	}
	return nil
}

// stores are the call as it is, and for another store that the user may have: the one that was whisk's before config.toml
// named another place.
func (c *call) stores() ([]*call, error) {
	first, err := launcher.FindDirs(c.getenv, os.Getuid(), "")
	if err != nil || first == c.dirs {
		return []*call{c}, err
	}
	other := *c
	other.dirs = first
	return []*call{c, &other}, nil
}

// idle refuses to go on while sandboxes run, but by force.
func (u *uninstallCmd) idle(stores []*call) error {
	var names []string
	for _, s := range stores {
		running, err := s.running()
		if err != nil {
			return err
		}
		for _, r := range running {
			names = append(names, displayName(&r))
		}
	}
	if len(names) > 0 && !u.Force {
		return usage("whisk stop "+strings.Join(names, " ")+"; or --force kills them", "sandboxes are running: %s", strings.Join(names, ", "))
	}
	return nil
}

// halt kills what runs, and returns when no keeper is left.
func (c *call) halt(ctx context.Context) error {
	running, err := c.running()
	if err != nil {
		return err
	}
	for _, r := range running {
		if err := c.end(ctx, &r, keeper.DownRequest{Timeout: new(time.Duration)}); err != nil {
			return err
		}
	}
	return c.awaitKeepers(ctx)
}

// running lists the sandboxes that run.
func (c *call) running() ([]launcher.Record, error) {
	records, err := launcher.Records(c.dirs)
	return slices.DeleteFunc(records, func(r launcher.Record) bool { return r.State != launcher.Running }), err
}

// awaitKeepers returns when no keeper is left: they leave after their last sandbox.
func (c *call) awaitKeepers(ctx context.Context) error {
	for until := time.Now().Add(goneWait); ; time.Sleep(20 * time.Millisecond) {
		held, err := launcher.HeldNetworks(c.dirs)
		if err != nil || len(held) == 0 {
			return err
		}
		if time.Now().After(until) || ctx.Err() != nil {
			return usage("try again", "networks are still held: %s", strings.Join(held, ", "))
		}
	}
}

// ask has the user confirm on the terminal.
func (u *uninstallCmd) ask(c *call, doomed []string) error {
	if u.Yes {
		return nil
	}
	if !term.IsTerminal(int(c.in.Fd())) {
		return usage("say --yes", "standard input is not a terminal, so nobody can be asked")
	}
	fmt.Fprintln(c.err, "This removes, for good:")
	for _, path := range doomed {
		fmt.Fprintln(c.err, "  "+path)
	}
	fmt.Fprint(c.err, "Go on? [y/N] ")
	answer, err := bufio.NewReader(c.in).ReadString('\n')
	if answer = strings.ToLower(strings.TrimSpace(answer)); err != nil || answer != "y" && answer != "yes" {
		return usage("", "nothing was removed")
	}
	return nil
}

// kept are the folders and files of whisk's that --purge removes.
func (c *call) kept() ([]string, error) {
	stores, err := c.stores()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, s := range stores {
		all = append(all, s.dirs.Data, s.dirs.Run)
	}
	all = append(all, config.UserFile(os.LookupEnv, c.getenv("HOME")))
	return slices.DeleteFunc(all, func(path string) bool {
		_, err := os.Lstat(path)
		return err != nil
	}), nil
}

// purge removes them. What is not whisk's stays, and so do the folders that hold it.
func (c *call) purge(ctx context.Context) error {
	if _, err := os.Lstat(c.dirs.Data); err == nil {
		if err := c.stage(ctx, c.out, []string{"uninstall", "--purge"}); err != nil {
			return err
		}
	}
	if entries, err := os.ReadDir(c.dirs.Networks()); err == nil {
		for _, e := range entries { // of keepers that were killed
			if err := os.RemoveAll(c.dirs.Network(e.Name())); err != nil {
				return fmt.Errorf("uninstall: %w", err)
			}
		}
	}
	settings := config.UserFile(os.LookupEnv, c.getenv("HOME"))
	if err := os.Remove(settings); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("uninstall: %w", err)
	}
	for _, dir := range []string{c.dirs.Networks(), c.dirs.Run, c.dirs.Data, filepath.Dir(settings)} {
		_ = os.Remove(dir) // one that is not empty stays
	}
	return nil
}

// runInside is the stage that run starts to remove files of sub-ids.
func (*uninstallCmd) runInside(_ context.Context, c *call) error {
	strange, err := launcher.Purge(c.dirs)
	if err != nil {
		return err
	}
	for _, path := range strange {
		c.warn(path + " is not whisk's, and stays")
	}
	return nil
}

// program are the files of this program that install.sh or make install have put below the home directory.
func (c *call) program() []string {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	home, err := filepath.EvalSymlinks(c.getenv("HOME")) // self has no links in it
	if err != nil {
		return nil
	}
	prefix := filepath.Dir(filepath.Dir(self))
	if rel, err := filepath.Rel(home, prefix); err != nil || !filepath.IsLocal(rel) || filepath.Base(filepath.Dir(self)) != "bin" {
		return nil
	}
	var files []string
	for _, path := range []string{self, prefix + "/share/man/man1/whisk.1", prefix + "/share/bash-completion/completions/whisk",
		prefix + "/share/zsh/site-functions/_whisk", prefix + "/share/fish/vendor_completions.d/whisk.fish"} {
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == os.Getuid() {
			files = append(files, path)
		}
	}
	return files
}
