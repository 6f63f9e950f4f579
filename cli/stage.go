package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/userns"
	"github.com/whisk-sandbox/whisk/userns/birth"
)

// StageName is argv[0] of a command that runs again inside the user namespace.
const StageName = "whisk-stage"

// stageVersion is the version of the document that a stage is given.
const stageVersion = 1

// stageDocument is what a stage is given on descriptor 3.
type stageDocument struct {
	Version int           `json:"version"`
	Whisk   string        `json:"whisk"` // version of whisk, as the command prints it
	Args    []string      `json:"args"`
	Dirs    launcher.Dirs `json:"dirs"`
	Single  bool          `json:"single"` // only one id is mapped
	// Sweep asks to remove what killed keepers and commands have left, instead of running Args.
	Sweep bool `json:"sweep,omitempty"`
}

// reconcile makes the state on disk true before a command shows or changes it: after a kill -9 there may be folders of
// sandboxes and networks that nobody holds. It is cheap where there are none.
func (c *call) reconcile(ctx context.Context) error {
	if err := launcher.SweepNetworks(c.dirs); err != nil || !launcher.Unswept(c.dirs) {
		return err
	}
	return c.startStage(ctx, c.err, stageDocument{Sweep: true})
}

// stage runs a command line inside the user namespace and waits for it. Its failure is a status: the stage has said
// what was wrong.
func (c *call) stage(ctx context.Context, stdout *os.File, args []string) error {
	return c.startStage(ctx, stdout, stageDocument{Args: args})
}

func (c *call) startStage(ctx context.Context, stdout *os.File, d stageDocument) error {
	m, err := c.userns()
	if err != nil {
		return err
	}
	if err := c.dirs.Make(); err != nil {
		return err
	}
	d.Version, d.Whisk, d.Dirs, d.Single = stageVersion, c.version, c.dirs, m.Single
	doc, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode stage document: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make stage document: %w", err)
	}
	defer r.Close()
	defer w.Close()
	// The terminal sends its signals to the stage as well, which cleans up and tells the end by its exit code; from
	// others they are passed on.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)
	p, err := m.Start(ctx, birth.Stage{
		Name: StageName, Env: os.Environ(), Files: []*os.File{r},
		Stdin: c.in, Stdout: stdout, Stderr: c.err, Pdeathsig: unix.SIGTERM,
	})
	if err != nil {
		return err
	}
	r.Close()
	written := make(chan error, 1)
	go func() {
		_, err := w.Write(doc)
		w.Close()
		written <- err
	}()
	for {
		select {
		case s := <-signals:
			if n, ok := s.(unix.Signal); ok {
				_ = p.Signal(n) // one that has ended takes none
			}
			continue
		case <-ctx.Done():
			_ = p.Signal(unix.SIGTERM)
		case <-p.Done():
		}
		ws, err := p.Wait()
		switch {
		case err != nil:
			return err
		case ws.Signaled():
			return status(128 + int(ws.Signal()))
		case ws.ExitStatus() != 0:
			return status(ws.ExitStatus())
		}
		return <-written
	}
}

// StageMain is what a stage does: it enters the user namespace, reads its document and runs the command.
func StageMain() int {
	// Go's runtime would die of the first of these; the store is to be left in order.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	c := &call{in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv, inside: true}
	if err := userns.Enter(); err != nil {
		return c.fault(err)
	}
	doc, err := readStage(os.NewFile(3, "stage document"))
	if err != nil {
		return c.fault(err)
	}
	c.version, c.args, c.dirs, c.single = doc.Whisk, doc.Args, doc.Dirs, doc.Single
	if doc.Sweep {
		if err := launcher.Sweep(c.dirs); err != nil {
			return c.fault(err)
		}
		return 0
	}
	code := c.main(ctx)
	if code != 0 && ctx.Err() != nil {
		return 128 + int(unix.SIGINT)
	}
	return code
}

func readStage(f *os.File) (*stageDocument, error) {
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4<<20))
	if err != nil {
		return nil, fmt.Errorf("read stage document: %w", err)
	}
	var doc stageDocument
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("read stage document: %w", err)
	}
	if doc.Version != stageVersion || doc.Dirs.Data == "" || doc.Dirs.Run == "" || len(doc.Args) == 0 && !doc.Sweep {
		return nil, errors.New("read stage document: not one of this version of whisk")
	}
	return &doc, nil
}
