package keeper

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/launcher"
)

// streams are the standard streams of an app: own are the ends that the keeper closes once the app has them.
type streams struct {
	launcher.Stdio
	own []*os.File
}

// teePipe is the size of the pipes of an app in the foreground, in bytes.
const teePipe = 256 << 10

// streams makes the app's standard streams: pipes to the log, and in the foreground through it to the command's own;
// both ends of a pty for a terminal. A sandbox in the foreground that is forgotten when it ends (--rm) has the command's
// own: nobody could read its log. after is called once the app has started, or has not.
func (m *managed) streams(sb *launcher.Sandbox, f *front) (s streams, after func(started bool), err error) {
	uid, err := sb.UserID("")
	if err != nil {
		return s, nil, err
	}
	if f != nil && !m.rec.App.TTY && m.rec.Remove {
		s.Stdio = launcher.Stdio(f.files)
		return s, func(bool) {}, nil
	}
	if f == nil || !m.rec.App.TTY { // in the foreground, the command itself sees and logs what a terminal shows
		if err := m.openLog(); err != nil {
			return s, nil, err
		}
	}
	if m.rec.App.TTY {
		master, slave, err := sb.Terminal(uid)
		if err != nil {
			return s, nil, err
		}
		s.Stdio, s.own = launcher.Stdio{slave, slave, slave}, []*os.File{slave}
		return s, func(started bool) {
			if !started {
				master.Close()
				return
			}
			if f == nil {
				m.copyTerminal(master)
				return
			}
			f.master = master
			_ = sendFile(f.files[0], master) // a command that is gone is noticed by its connection
		}, nil
	}
	var ends []*os.File
	fail := func(err error) (streams, func(bool), error) {
		closeAll(append(ends, s.own...))
		return streams{}, nil, err
	}
	for i, name := range []string{"stdout", "stderr"} {
		r, w, err := os.Pipe()
		if err != nil {
			return fail(fmt.Errorf("make pipe for %s: %w", name, err))
		}
		// An app that has dropped to another user may open /dev/stdout again, as nginx does. With one id it is its own already.
		if m.s.doc.MaxID != 0 {
			if err := w.Chown(uid, -1); err != nil {
				return fail(fmt.Errorf("give %s to user %d: %w", name, uid, err))
			}
		}
		if f != nil { // fewer and longer turns between the app and whisk; a user may have 64 MB of pipes so, pipe(7)
			_, _ = unix.FcntlInt(r.Fd(), unix.F_SETPIPE_SZ, teePipe)
		}
		ends, s.own = append(ends, r), append(s.own, w)
		s.Stdio[i+1] = w
	}
	if f != nil {
		s.Stdio[0] = f.files[0]
		return s, func(started bool) {
			if !started {
				closeAll(ends)
				return
			}
			m.relayOutput(ends, f)
		}, nil
	}
	if m.rec.Stdin {
		// Open, and silent: nobody is there to type.
		r, w, err := os.Pipe()
		if err != nil {
			return fail(fmt.Errorf("make pipe for stdin: %w", err))
		}
		s.own = append(s.own, r)
		s.Stdio[0] = r
		return s, func(started bool) {
			if !started {
				closeAll(append(ends, w))
				return
			}
			m.copyOutput(ends)
			go func() { <-m.ended; w.Close() }()
		}, nil
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fail(err)
	}
	s.own = append(s.own, null)
	s.Stdio[0] = null
	return s, func(started bool) {
		if !started {
			closeAll(ends)
			return
		}
		m.copyOutput(ends)
	}, nil
}

func (m *managed) openLog() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.openLogLocked()
}

func (m *managed) openLogLocked() error {
	if m.log != nil {
		m.log.Line = m.lines // of this run; nobody writes between two
		return nil
	}
	log, err := launcher.OpenLog(m.s.doc.Dirs.Log(m.rec.ID))
	if err != nil {
		return err
	}
	log.Line = m.lines
	m.log = log
	return nil
}

func (m *managed) copyOutput(ends []*os.File) {
	log := m.log
	for i, name := range []string{"stdout", "stderr"} {
		m.copies.Go(func() {
			log.Copy(ends[i], name)
			ends[i].Close()
		})
	}
}

// relayOutput passes the app's output on to the command in the foreground, and logs it. Nobody waits for output to a command
// that has gone: what it was written to may be full for ever.
func (m *managed) relayOutput(ends []*os.File, f *front) {
	log := m.log
	for i, name := range []string{"stdout", "stderr"} {
		through := make(chan struct{})
		go func() {
			log.Tee(ends[i], f.files[i+1], name)
			ends[i].Close()
			close(through)
		}()
		m.copies.Go(func() {
			select {
			case <-through:
			case <-f.gone:
			}
		})
	}
}

// copyTerminal logs what an app writes to its terminal when nobody watches.
func (m *managed) copyTerminal(master *os.File) {
	log := m.log
	m.copies.Go(func() {
		log.Copy(master, "stdout")
		master.Close()
	})
}

// detach lets a foreground sandbox live on without its command. One whose app has ended meanwhile is left to its end.
func (m *managed) detach() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.front
	if f == nil || m.ending {
		return nil
	}
	if f.master == nil {
		return &launcher.Error{Message: "only a sandbox with a terminal can be detached from", Hint: "start it with -it, or with -d", Exit: launcher.ExitWhisk}
	}
	if err := m.openLogLocked(); err != nil {
		return err
	}
	m.front = nil
	m.copyTerminal(f.master)
	close(f.done)
	return nil
}

// sendFile sends one descriptor over a socket.
func sendFile(sock, f *os.File) error {
	err := unix.Sendmsg(int(sock.Fd()), []byte{0}, unix.UnixRights(int(f.Fd())), nil, unix.MSG_NOSIGNAL)
	if err != nil {
		return fmt.Errorf("send terminal: %w", err)
	}
	return nil
}
