package launcher

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// A sandbox's log is a file of JSON documents, one a line. When it is full it becomes log.1, log.1 becomes
// log.2, and log.2 is forgotten.
const (
	logFileSize = 16 << 20 // three of these bound what a noisy app can fill
	maxLogLine  = 16 << 10 // longer lines are cut into several, as Docker does
)

// LogLine is one line of a sandbox's output.
type LogLine struct {
	Time    time.Time `json:"t"`
	Stream  string    `json:"s"`           // "stdout" or "stderr"
	Text    string    `json:"m"`           // without its newline
	Partial bool      `json:"p,omitempty"` // the line goes on in the next one
}

// Log writes a sandbox's output. It is safe for use by several goroutines.
type Log struct {
	mu   sync.Mutex
	name string
	f    *os.File
	size int64
	// Line, when not nil, is told of every line.
	Line func(LogLine)
}

// OpenLog opens a log for appending.
func OpenLog(name string) (*Log, error) {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open log: %w", err)
	}
	return &Log{name: name, f: f, size: st.Size()}, nil
}

// Close closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Close()
}

func (l *Log) write(line LogLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, err := json.Marshal(line)
	if err != nil {
		return
	}
	b = append(b, '\n')
	if l.size+int64(len(b)) > logFileSize && wall.Up("log limit") {
		l.rotate()
	}
	// A full disk loses lines and must not stop the app, which would block on its pipe.
	n, _ := l.f.Write(b)
	l.size += int64(n)
	if l.Line != nil {
		l.Line(line)
	}
}

func (l *Log) rotate() {
	_ = os.Rename(l.name+".1", l.name+".2")
	if err := os.Rename(l.name, l.name+".1"); err != nil {
		return
	}
	f, err := os.OpenFile(l.name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	l.f.Close()
	l.f, l.size = f, 0
}

// Copy writes all that comes from r until its end. It never stops reading: an app must not block on its log. The
// master of a pty answers EIO once no process has the other end open, and may do so while the last output is still
// queued (pty(7)): only the second EIO in a row is its end.
func (l *Log) Copy(r io.Reader, stream string) {
	ended := false
	in := bufio.NewReaderSize(r, maxLogLine)
	for {
		b, err := in.ReadSlice('\n')
		if len(b) > 0 {
			text := bytes.TrimSuffix(b, []byte("\n"))
			l.write(LogLine{Time: time.Now().UTC(), Stream: stream, Text: string(text), Partial: errors.Is(err, bufio.ErrBufferFull)})
		}
		switch {
		case err == nil || errors.Is(err, bufio.ErrBufferFull):
			ended = false
		case errors.Is(err, unix.EIO) && !ended:
			ended = true
		default:
			return
		}
	}
}

// LogOptions choose the lines that ReadLog gives.
type LogOptions struct {
	Follow bool      // wait for more until the sandbox has ended
	Since  time.Time // zero: from the start
	Tail   int       // the last so many lines; below 0: all
}

// ReadLog calls each for the lines of a sandbox's log, oldest first. With Follow it returns when the sandbox is
// not running any more and all its lines have been given, or when ctx is done.
func ReadLog(ctx context.Context, d Dirs, id string, o LogOptions, each func(LogLine) error) error {
	name := d.Log(id)
	give := func(line LogLine) error {
		if line.Time.Before(o.Since) {
			return nil
		}
		return each(line)
	}
	var last []LogLine
	collect := give
	if o.Tail >= 0 {
		collect = func(line LogLine) error {
			if line.Time.Before(o.Since) || o.Tail == 0 {
				return nil
			}
			if len(last) == o.Tail {
				copy(last, last[1:])
				last = last[:o.Tail-1]
			}
			last = append(last, line)
			return nil
		}
	}
	for _, old := range []string{name + ".2", name + ".1"} {
		f, err := os.Open(old)
		if err != nil {
			continue
		}
		err = newLogReader(f).all(collect)
		f.Close()
		if err != nil {
			return err
		}
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(d.Sandbox(id)); err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		if !o.Follow {
			return nil
		}
		f, err = os.OpenFile(name, os.O_CREATE|os.O_RDONLY, 0o600)
	}
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	defer func() { f.Close() }()
	r := newLogReader(f)
	if err := r.all(collect); err != nil {
		return err
	}
	for _, line := range last {
		if err := each(line); err != nil {
			return err
		}
	}
	for o.Follow {
		ended := !running(d, id) // asked before reading: what was written until then is read below
		if err := r.all(give); err != nil {
			return err
		}
		if rotated(f, name) {
			next, err := os.Open(name)
			if err != nil {
				return fmt.Errorf("read log: %w", err)
			}
			if err := r.all(give); err != nil {
				return err
			}
			f.Close()
			f, r = next, newLogReader(next)
			continue
		}
		if ended {
			return nil
		}
		if err := waitForChange(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func running(d Dirs, id string) bool {
	r, err := ReadRecord(d, id)
	return err == nil && r.State == Running && Held(d, r.KeeperName())
}

func rotated(f *os.File, name string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Stat(name)
	return err1 == nil && err2 == nil && !os.SameFile(a, b)
}

// waitForChange returns when the file was written or moved, or after half a second, in which a sandbox may have
// ended without a word. inotify(7).
func waitForChange(ctx context.Context, name string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == nil {
		defer unix.Close(fd)
		_, err = unix.InotifyAddWatch(fd, name, unix.IN_MODIFY|unix.IN_MOVE_SELF|unix.IN_DELETE_SELF)
	}
	for range 10 {
		if ctx.Err() != nil {
			return nil
		}
		if err != nil { // no watches left for this user
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 50); n > 0 {
			return nil
		}
	}
	return nil
}

// logReader reads whole lines and keeps the start of one that is still being written.
type logReader struct {
	in   *bufio.Reader
	part []byte
}

func newLogReader(f *os.File) *logReader { return &logReader{in: bufio.NewReaderSize(f, 64<<10)} }

func (r *logReader) all(each func(LogLine) error) error {
	for {
		b, err := r.in.ReadBytes('\n')
		r.part = append(r.part, b...)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		var line LogLine
		bad := json.Unmarshal(r.part, &line)
		r.part = r.part[:0]
		if bad != nil {
			continue // cut off by a full disk or a crash
		}
		if err := each(line); err != nil {
			return err
		}
	}
}
