package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/keeper"
)

type upCmd struct {
	Detach   bool   `short:"d" help:"Return when all apps are ready, and leave them in the background."`
	Pull     string `enum:"missing,always,never" default:"missing" placeholder:"WHEN" help:"Fetch images: missing, always or never."`
	Recreate bool   `help:"Start apps anew that run already and have not changed."`
	machineFlags
	File string   `short:"f" placeholder:"FILE" help:"The project's whisk.toml; without it the nearest from here upwards."`
	Apps []string `arg:"" optional:"" name:"app" placeholder:"[APP…]" help:"Apps to start, with all they depend on; without one all."`
}

// Help is what kong shows below the flags.
func (*upCmd) Help() string {
	return `In the foreground the apps' output is shown; ctrl-c stops them, ctrl-c again kills
them, and its exit code is that of the first app that failed. Apps that run
already and have not changed, nor the images they were made from, are left
alone. When an app fails before it is ready, those that were started are
stopped; whisk logs shows what they said.

Examples:
  whisk up
  whisk up -d db`
}

func (u *upCmd) run(ctx context.Context, c *call) error {
	p, err := c.loadProject(u.File)
	if err != nil {
		return err
	}
	return c.up(ctx, p, u)
}

// up starts a project, which whisk.toml described or which is built in.
func (c *call) up(ctx context.Context, p *config.Project, u *upCmd) error {
	specs, err := projectSpecs(p, u.Apps, launcher.NewID)
	if err != nil {
		return err
	}
	all := make([]*launcher.Spec, len(specs))
	for i := range specs {
		all[i] = &specs[i]
		if err := u.apply(all[i]); err != nil {
			return err
		}
		if err := c.limits(all[i]); err != nil {
			return err
		}
	}
	if err := c.guard(all...); err != nil {
		return err
	}
	if err := c.makeWay(p, specs); err != nil {
		return err
	}
	if u.Pull == pullAlways {
		if err := c.pull(ctx, wanted(all...)); err != nil {
			return err
		}
	}
	m, err := c.userns()
	if err != nil {
		return err
	}
	return c.withImages(ctx, u.Pull, func() error {
		client, err := keeper.Open(ctx, c.dirs, p.Name, m, p.Egress)
		if err != nil {
			return err
		}
		defer client.Close()
		if u.Detach {
			c.sayLinger()
		}
		w := &watcher{call: c, client: client, project: p.Name, follow: !u.Detach, shown: map[string]bool{}}
		return w.up(ctx, keeper.UpRequest{Specs: specs, Attach: !u.Detach, Recreate: u.Recreate})
	})
}

// watcher tells what happens while a project starts, and shows its apps' output in the foreground.
type watcher struct {
	*call
	client  *keeper.Client
	project string
	follow  bool

	logs    sync.WaitGroup
	printer *logPrinter

	mu    sync.Mutex
	ids   []string        // of the sandboxes that are asked for, and of those that run already
	shown map[string]bool // ids, whose output is shown
	code  int             // of the first app that failed
}

// logGrace is how long the end of the apps' output may take to be read from their logs.
const logGrace = time.Second

func (w *watcher) up(ctx context.Context, r keeper.UpRequest) error {
	names := make([]string, len(r.Specs))
	for i, s := range r.Specs {
		names[i] = s.App.Name
		w.ids = append(w.ids, s.ID)
	}
	w.printer = &logPrinter{out: w.out, err: w.err, prefix: newPrefixer(w.out, w.getenv, names)}
	logCtx, stopLogs := context.WithCancel(ctx)
	defer stopLogs()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- w.client.Up(ctx, r, func(ev keeper.Event) { w.event(logCtx, ev, began) }) }()
	var err error
	interrupted := unix.Signal(0)
wait:
	for {
		select {
		case err = <-done:
			break wait
		case s := <-signals:
			n, _ := s.(unix.Signal)
			switch {
			case !w.follow:
				// The request's end stops what it has started so far.
				interrupted = n
				cancel()
			case interrupted == 0:
				interrupted = n
				w.warn("stopping; ctrl-c again kills")
				go func() {
					w.down(nil)
					// What has ended is told of. A request that waits for something else, as for its turn, is given up.
					time.Sleep(logGrace)
					cancel()
				}()
			default:
				w.warn("killing")
				go w.down(new(time.Duration))
			}
		}
	}
	ended := make(chan struct{})
	go func() { w.logs.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(logGrace):
		stopLogs()
		<-ended
	}
	switch {
	case interrupted != 0:
		return status(128 + int(interrupted))
	case err != nil:
		return err
	case w.code != 0:
		return status(w.code)
	}
	return nil
}

// down ends what this command has asked for, also what has not started yet. It goes on when the command's own request is
// over.
func (w *watcher) down(timeout *time.Duration) {
	w.mu.Lock()
	ids := slices.Clone(w.ids)
	w.mu.Unlock()
	err := w.client.Down(context.Background(), keeper.DownRequest{IDs: ids, Coming: true, Timeout: timeout}, w.warnings)
	if err != nil && !errors.Is(err, keeper.ErrNoKeeper) && launcher.AsError(err).Kind != launcher.KindLeaving {
		w.fault(err)
	}
}

// event tells of one thing that happened to an app.
func (w *watcher) event(ctx context.Context, ev keeper.Event, began time.Time) {
	switch ev.Type {
	case keeper.EventStarted:
		at := ""
		if ev.IPv4 != "" {
			at = " at " + ev.IPv4
		}
		w.warnf("%s: started%s%s", ev.App, at, publishedText(ev.Ports))
		w.watch(ctx, ev, began)
	case keeper.EventKept:
		w.warnf("%s: runs already", ev.App)
		w.watch(ctx, ev, began)
	case keeper.EventWaiting:
		w.warnf("%s: waiting for %s", ev.App, ev.Text)
	case keeper.EventReady:
		w.warnf("%s: ready", ev.App)
	case keeper.EventExited:
		w.mu.Lock()
		if w.code == 0 {
			w.code = ev.Code
		}
		w.mu.Unlock()
		w.warnf("%s: exited (%d)", ev.App, ev.Code)
	case keeper.EventStopped:
		w.warnf("%s: stopped", ev.App)
	case keeper.EventWarning:
		if ev.App != "" {
			ev.Text = ev.App + ": " + ev.Text
		}
		w.warn(ev.Text)
	}
}

// publishedText tells where an app is reached.
func publishedText(ports []launcher.PublishedPort) string {
	if len(ports) == 0 {
		return ""
	}
	return ", published on " + strings.Join(portTexts(ports), ", ")
}

// watch shows an app's output from now on, once.
func (w *watcher) watch(ctx context.Context, ev keeper.Event, began time.Time) {
	w.mu.Lock()
	seen := w.shown[ev.ID]
	w.shown[ev.ID] = true
	if !slices.Contains(w.ids, ev.ID) {
		w.ids = append(w.ids, ev.ID)
	}
	w.mu.Unlock()
	if seen || !w.follow || ev.ID == "" {
		return
	}
	w.logs.Go(func() {
		o := launcher.LogOptions{Follow: true, Since: began, Tail: -1}
		err := launcher.ReadLog(ctx, w.dirs, ev.ID, o, func(line launcher.LogLine) error { return w.printer.print(ev.App, line) })
		if err != nil && ctx.Err() == nil {
			w.warn(fmt.Sprintf("%s: %v", ev.App, err))
		}
	})
}
