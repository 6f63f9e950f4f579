package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/keeper"
	"github.com/whisk-sandbox/whisk/launcher/terminal"
)

// ending are the signals that end the attempt while there is no app yet to pass them on to.
func ending() []os.Signal {
	return []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT}
}

// forwarded are the signals that a command in the foreground passes on besides those that end. Left out are those that say
// something of whisk's own process (SIGCHLD, SIGPIPE, SIGURG, SIGWINCH), that stop it (SIGTSTP, SIGTTIN, SIGTTOU) or that
// mean a fault in it.
func forwarded() []os.Signal {
	return []os.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT, unix.SIGALRM, unix.SIGVTALRM, unix.SIGIO, unix.SIGPWR}
}

// foreground is a command whose end this process waits for.
type foreground struct {
	*call
	client *keeper.Client
	id     string // of the sandbox
	stdin  bool
	keys   []byte // that detach
	log    bool   // what a terminal shows is kept for whisk logs
	begin  func(context.Context, keeper.Streams, func(keeper.Event)) error
	// signal passes a signal on to the app, or to the further command that exec names.
	signal func(ctx context.Context, exec string, number int) error
}

// run returns nil when the caller detached, and the exit code as a status otherwise.
func (f *foreground) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in := f.in
	if !f.stdin {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return err
		}
		defer null.Close()
		in = null
	}
	var started, detached atomic.Bool
	var exec atomic.Value // string: the further command's name
	exec.Store("")
	asked := make(chan struct{}) // closed when the keeper has answered that the caller wants to detach
	var killed atomic.Int32      // the signal that ended whisk's wait
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, ending()...)
	go func() {
		for s := range signals {
			n, _ := s.(unix.Signal)
			if !started.Load() {
				killed.Store(int32(n))
				cancel()
				continue
			}
			_ = f.signal(ctx, exec.Load().(string), int(n)) // an app that has just ended takes none
		}
	}()

	var session *terminal.Session
	var sessionErr error
	attach := func(master *os.File) {
		o := terminal.Options{Out: f.out, DetachKeys: f.keys}
		if f.stdin {
			o.In = f.in
		}
		if f.log {
			log, err := launcher.OpenLog(f.dirs.Log(f.id))
			if err != nil {
				f.warnf("the output is not kept: %v", err)
			} else {
				o.Log = log.Writer("stdout")
			}
		}
		if session, sessionErr = terminal.Attach(master, o); sessionErr != nil {
			cancel()
			return
		}
		go func() {
			<-session.Detached()
			defer close(asked)
			if err := f.client.Detach(ctx, f.id); err == nil {
				detached.Store(true)
			}
			cancel()
		}()
	}
	code, exited := 0, false
	var forwarding sync.WaitGroup
	err := f.begin(ctx, keeper.Streams{Stdin: in, Stdout: f.out, Stderr: f.err, Terminal: attach}, func(ev keeper.Event) {
		f.warnings(ev)
		switch ev.Type {
		case keeper.EventStarted:
			exec.Store(ev.Exec)
			started.Store(true)
			// Not before, and aside: asking for a signal takes the Go runtime some 100 µs, and the app's end may be on its way.
			forwarding.Go(func() { signal.Notify(signals, forwarded()...) })
		case keeper.EventExited:
			code, exited = ev.Code, true
		}
	})
	if session != nil {
		sessionErr = errors.Join(sessionErr, session.Close())
	}
	if session != nil && !exited {
		select {
		case <-session.Detached():
			<-asked
		default:
		}
	}
	if !exited { // else whisk ends, too, and asking the Go runtime to let go of signals would take as long as asking for them
		forwarding.Wait()
		signal.Stop(signals)
		close(signals)
	}
	switch {
	case detached.Load():
		fmt.Fprintln(f.err) // the cursor is behind the app's last line
		f.hint("whisk logs -f " + f.id)
		return nil
	case exited && code != 0:
		return status(code)
	case exited:
		return nil
	case killed.Load() != 0:
		return status(128 + int(killed.Load()))
	case sessionErr != nil:
		return sessionErr
	}
	return err
}
