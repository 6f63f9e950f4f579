package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/whisk-sandbox/whisk/doctor"
	"github.com/whisk-sandbox/whisk/image"
	"github.com/whisk-sandbox/whisk/remedy"
)

type doctorCmd struct {
	JSON    bool `name:"json" help:"Print JSON."`
	Fix     bool `help:"Print a shell script for root that mends what root can; it is not run."`
	Profile bool `name:"apparmor-profile" help:"Print an AppArmor profile that lets this whisk have user namespaces."`
}

// Help is what kong shows below the flags.
func (*doctorCmd) Help() string {
	return `Looks at this machine for what sandboxes need, and says of each thing what it
found, what is lost without it and the command that mends it. Problems come
first. The exit code is 0 when sandboxes can run, 1 when something that they
need is missing. Nothing is changed.

Examples:
  whisk doctor
  whisk doctor --fix > fix.sh && less fix.sh && sudo sh fix.sh`
}

// doctorDocument is what --json prints.
type doctorDocument struct {
	OK       bool             `json:"ok"` // sandboxes can run
	Findings []doctor.Finding `json:"findings"`
}

func (d *doctorCmd) run(ctx context.Context, c *call) error {
	if d.Fix && d.Profile || d.JSON && (d.Fix || d.Profile) {
		return usage("whisk doctor --help", "--json, --fix and --apparmor-profile cannot be used together")
	}
	if d.Profile {
		binary, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find whisk's own path: %w", err)
		}
		_, err = io.WriteString(c.out, remedy.Profile(binary))
		return err
	}
	v := doctor.Look(c.version, c.dirs.Data)
	if v.Refusal == nil {
		if err := d.inside(ctx, c, &v); err != nil {
			v.Entry = err.Error()
		}
	}
	findings := doctor.Examine(v)
	if d.Fix {
		_, err := io.WriteString(c.out, doctor.Script(findings))
		return err
	}
	broken := doctor.Broken(findings)
	var err error
	if d.JSON {
		err = writeJSON(c.out, doctorDocument{OK: !broken, Findings: findings})
	} else {
		err = doctor.Write(c.out, findings, printable)
	}
	if err == nil && broken {
		return status(1)
	}
	return err
}

// inside has runInside run in a stage, and reads what it tried. A map that cannot be had is a finding already.
func (d *doctorCmd) inside(ctx context.Context, c *call, v *doctor.View) error {
	m, err := v.Machine.Find(v.User)
	if err != nil {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer r.Close()
	said, says, err := os.Pipe()
	if err != nil {
		w.Close()
		return fmt.Errorf("make pipe: %w", err)
	}
	defer said.Close()
	type answer struct {
		text []byte
		err  error
	}
	words := make(chan answer, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(said, 4096))
		words <- answer{text, err}
	}()
	results := make(chan answer, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(r, 1<<20))
		results <- answer{text, err}
	}()
	quiet := *c
	quiet.err = says // what goes wrong in the stage is a finding, not a line on the terminal
	err = quiet.startMapped(ctx, m, w, stageDocument{Args: []string{"doctor"}})
	w.Close()
	says.Close()
	result, word := <-results, <-words
	switch {
	case err != nil && len(word.text) > 0:
		return errors.New(strings.TrimSpace(strings.TrimPrefix(firstLine(string(word.text)), "whisk: ")))
	case err != nil:
		return err
	case result.err != nil:
		return fmt.Errorf("read what was tried: %w", result.err)
	}
	tried := &doctor.Tried{}
	if err := json.Unmarshal(result.text, tried); err != nil {
		return fmt.Errorf("read what was tried: %w", err)
	}
	v.Inside = tried
	return nil
}

// runInside does the tries that need a user namespace.
func (d *doctorCmd) runInside(ctx context.Context, c *call) error {
	tried := doctor.Try(nearest(c.dirs.Data), c.single)
	// A store that was never used is not made for the sake of being looked at.
	if _, err := os.Stat(c.dirs.Storage()); err == nil && tried.Write == "" {
		err := c.withStore(func(s *image.Store) error {
			images, err := s.List(ctx)
			tried.Images = len(images)
			return err
		})
		if err != nil {
			tried.Store = err.Error()
		}
	}
	return writeJSONLine(c.out, tried)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// nearest is dir, or the nearest folder above it that is there.
func nearest(dir string) string {
	for {
		if st, err := os.Stat(dir); err == nil && st.IsDir() || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}
