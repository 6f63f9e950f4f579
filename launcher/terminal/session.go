package terminal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// drainTime is how long Close waits for the end of the app's output. All of it is in the kernel when the app has
// ended, and the pty is hung up at once; only a process that the app left behind on the terminal keeps it open.
const drainTime = 200 * time.Millisecond

// chunk is how much is copied at once: the size of the kernel's buffer of a terminal's line discipline, n_tty.
const chunk = 4096

// leftover bounds what is still copied after drainTime: more than the kernel buffers for a pty (64 KiB, tty_buffer.c,
// and n_tty's page), so that nothing the app wrote is lost and a process that never stops writing is left.
const leftover = 128 << 10

// Options say which terminal is lent, and how to get it back.
type Options struct {
	In         *os.File       // the caller's input; nil: the app is given none
	Out        *os.File       // the caller's output
	Log        io.WriteCloser // is given what Out has been given, and closed; nil: nothing is
	DetachKeys []byte         // from config.ParseDetachKeys; empty: nothing detaches
}

// Session is a terminal that is lent to an app. Its methods may be called from several goroutines.
type Session struct {
	master   *os.File
	fd       int // master's; os.File.Fd would set it to blocking again
	detached chan struct{}
	output   chan struct{} // closed when the app's output has ended
	input    chan struct{} // closed when nothing reads the caller's input any more
	ending   chan struct{} // closed when Close has waited long enough for the output
	hangup   [2]*os.File   // a pipe; closing [1] ends the input's goroutine
	drain    [2]*os.File   // the same for the output's
	winch    chan os.Signal
	restore  func() error
	once     sync.Once
	err      error
}

// Attach gives the pty the size of the caller's terminal, sets that to raw mode where there is one to read from,
// and starts copying. The session owns master from then on. Close must be called, whatever happens.
func Attach(master *os.File, o Options) (*Session, error) {
	s := &Session{
		master:   master,
		fd:       int(master.Fd()),
		detached: make(chan struct{}),
		output:   make(chan struct{}),
		input:    make(chan struct{}),
		ending:   make(chan struct{}),
		winch:    make(chan os.Signal, 1),
		restore:  func() error { return nil },
	}
	// An app that does not read must not block the writer, which also watches for Close.
	if err := unix.SetNonblock(s.fd, true); err != nil {
		master.Close()
		return nil, fmt.Errorf("set pty non-blocking: %w", err)
	}
	for _, pipe := range []*[2]*os.File{&s.hangup, &s.drain} {
		r, w, err := os.Pipe()
		if err != nil {
			s.closeFiles()
			return nil, fmt.Errorf("make pipe: %w", err)
		}
		pipe[0], pipe[1] = r, w
	}
	if o.In != nil && term.IsTerminal(int(o.In.Fd())) {
		old, err := term.MakeRaw(int(o.In.Fd()))
		if err != nil {
			s.closeFiles()
			return nil, fmt.Errorf("set terminal to raw mode: %w", err)
		}
		s.restore = func() error { return term.Restore(int(o.In.Fd()), old) }
	}
	s.followSize(o)
	go s.copyOutput(o.Out, o.Log)
	if o.In != nil {
		go s.copyInput(o.In, &matcher{keys: o.DetachKeys})
	} else {
		close(s.input)
	}
	return s, nil
}

// Detached is closed when the caller typed the detach keys.
func (s *Session) Detached() <-chan struct{} { return s.detached }

// Close takes the terminal back: it waits for the rest of the app's output unless the caller has detached, stops
// reading the caller's input, restores the terminal's mode and closes the master. Further calls return the same.
func (s *Session) Close() error {
	s.once.Do(func() {
		// The mode comes back even if a goroutine of this session panics its way through here.
		defer func() { s.err = errors.Join(s.err, s.restore()) }()
		signal.Stop(s.winch)
		close(s.winch)
		s.hangup[1].Close()
		select {
		case <-s.detached:
		case <-s.output:
		case <-time.After(drainTime):
		}
		close(s.ending)
		s.drain[1].Close()
		<-s.input
		select {
		case <-s.output:
			s.closeFiles()
		case <-s.detached:
			// The output may hang in a terminal stopped by ctrl-s; the files die with the process.
		}
	})
	return s.err
}

func (s *Session) closeFiles() {
	s.master.Close()
	for _, f := range []*os.File{s.hangup[0], s.hangup[1], s.drain[0], s.drain[1]} {
		if f != nil {
			f.Close()
		}
	}
}

// followSize keeps the pty at the size of the caller's terminal.
func (s *Session) followSize(o Options) {
	var tty *os.File
	for _, f := range []*os.File{o.Out, o.In} {
		if f != nil && term.IsTerminal(int(f.Fd())) {
			tty = f
			break
		}
	}
	if tty == nil {
		go func() {
			for range s.winch { // until Close
			}
		}()
		return
	}
	from, to := int(tty.Fd()), s.fd
	copySize(from, to)
	signal.Notify(s.winch, unix.SIGWINCH)
	go func() {
		for range s.winch {
			copySize(from, to)
		}
	}()
}

// copySize copies a terminal's size. A terminal that was taken away has none, and that is no fault.
func copySize(from, to int) {
	if size, err := unix.IoctlGetWinsize(from, unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(to, unix.TIOCSWINSZ, size)
	}
}

func (s *Session) copyOutput(out *os.File, log io.WriteCloser) {
	defer close(s.output)
	if log != nil {
		defer log.Close()
	}
	stop := int(s.drain[0].Fd())
	buf := make([]byte, chunk)
	over := false
	for left := leftover; left > 0; {
		select {
		case <-s.detached: // the output is the keeper's
			return
		default:
		}
		n, err := unix.Read(s.fd, buf)
		switch {
		case n > 0:
			if _, err := out.Write(buf[:n]); err != nil {
				return // nobody is there to read it
			}
			if log != nil {
				_, _ = log.Write(buf[:n]) // output matters more than its log
			}
			select {
			case <-s.ending:
				left -= n
			default:
			}
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			// What the app has written is wanted even after Close has begun.
			if got, _, err := wait(s.fd, unix.POLLIN, stop); err != nil || got == 0 {
				return
			}
		case err == unix.EIO && !over:
			// No process has the pty open any more, pty(7). The kernel asks for that after it has looked for
			// input (n_tty_read), so what came in between is still there: a second answer is the truth.
			over = true
		default:
			return
		}
	}
}

func (s *Session) copyInput(in *os.File, keys *matcher) {
	defer close(s.input)
	from, stop := int(in.Fd()), int(s.hangup[0].Fd())
	buf := make([]byte, chunk)
	for {
		if _, stopped, err := wait(from, unix.POLLIN, stop); err != nil || stopped {
			return
		}
		n, err := unix.Read(from, buf)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		pass, detach := keys.feed(buf[:n])
		if err := writeAll(s.fd, pass, stop); err != nil {
			return
		}
		if detach {
			// The flag belongs to all who hold this pty, and the keeper reads it from now on.
			_ = unix.SetNonblock(s.fd, false)
			close(s.detached)
			return
		}
	}
}

// writeAll writes to the non-blocking fd until all is written or stop is hung up.
func writeAll(fd int, p []byte, stop int) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if n > 0 {
			p = p[n:]
		}
		switch err {
		case nil, unix.EINTR:
		case unix.EAGAIN:
			// A pty that is hung up is never writable, and does not say so by an error either.
			if got, stopped, err := wait(fd, unix.POLLOUT, stop); err != nil || stopped || got&unix.POLLOUT == 0 {
				return io.ErrClosedPipe
			}
		default:
			return err
		}
	}
	return nil
}

// wait returns what poll(2) says of fd, and whether the other end of the pipe stop has been closed.
func wait(fd int, events int16, stop int) (got int16, stopped bool, err error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(stop)}}
	for {
		if _, err = unix.Poll(fds, -1); err != unix.EINTR {
			return fds[0].Revents, fds[1].Revents != 0, err
		}
	}
}
