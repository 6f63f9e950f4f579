package launcher

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

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
	mu    sync.Mutex
	lines *lineFile
	// Line, when not nil, is told of every line.
	Line func(LogLine)
}

// OpenLog opens a log for appending.
func OpenLog(name string) (*Log, error) {
	f, err := openLineFile(name, logFileSize)
	if err != nil {
		return nil, err
	}
	return &Log{lines: f}, nil
}

// Close closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.close()
}

// write loses lines where the disk is full: the app would block on its pipe.
func (l *Log) write(line LogLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines.write(line)
	if l.Line != nil {
		l.Line(line)
	}
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

// ReadLog calls each for the lines of a sandbox's log, oldest first. With Follow it returns when the sandbox is
// not running any more and all its lines have been given, or when ctx is done.
func ReadLog(ctx context.Context, d Dirs, id string, o LogOptions, each func(LogLine) error) error {
	if _, err := os.Stat(d.Sandbox(id)); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	keep := func(l *LogLine) bool { return !l.Time.Before(o.Since) }
	return readLines(ctx, d.Log(id), o, keep, func() bool { return !running(d, id) }, each)
}

func running(d Dirs, id string) bool {
	r, err := ReadRecord(d, id)
	return err == nil && r.State == Running && Held(d, r.KeeperName())
}
