package launcher

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

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
	Text    string    `json:"m"`           // without its newline; in the file, several lines of one time may stand together
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

// teeSize is how much of a foreground app's output is passed on at once: what a pipe holds, pipe(7).
const teeSize = 64 << 10

// Tee passes on what comes from r until its end, as it comes, and logs it. When it cannot be passed on any more it stops
// reading, so that the app meets its broken pipe as it would without a log between.
func (l *Log) Tee(r io.Reader, to io.Writer, stream string) {
	w := l.Writer(stream)
	defer w.Close()
	buf := make([]byte, teeSize)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
			_, _ = w.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// LogWriter logs what is written to it. All complete lines of one Write become one document: a log beside output that
// somebody waits for must not cost a system call a line.
type LogWriter struct {
	log    *Log
	stream string
	rest   []byte // the start of a line
}

// Writer is for one goroutine.
func (l *Log) Writer(stream string) *LogWriter { return &LogWriter{log: l, stream: stream} }

// Write never fails: see Log.
func (w *LogWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	if i := bytes.LastIndexByte(w.rest, '\n'); i >= 0 {
		w.emit(w.rest[:i], false)
		w.rest = append(w.rest[:0], w.rest[i+1:]...)
	}
	for len(w.rest) > maxLogLine {
		cut := maxLogLine
		for cut > maxLogLine-utf8.UTFMax && !utf8.RuneStart(w.rest[cut]) { // JSON has no half characters
			cut--
		}
		w.emit(w.rest[:cut], true)
		w.rest = append(w.rest[:0], w.rest[cut:]...)
	}
	return len(p), nil
}

// Close logs a last line that has no end. The log stays open.
func (w *LogWriter) Close() error {
	if len(w.rest) > 0 {
		w.emit(w.rest, false)
		w.rest = nil
	}
	return nil
}

func (w *LogWriter) emit(text []byte, partial bool) {
	line := LogLine{Time: time.Now().UTC(), Stream: w.stream, Text: string(text), Partial: partial}
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	w.log.lines.write(line)
	if w.log.Line != nil {
		for _, one := range line.split() {
			w.log.Line(one)
		}
	}
}

// split gives the lines that stand together.
func (l LogLine) split() []LogLine {
	texts := strings.Split(l.Text, "\n")
	out := make([]LogLine, len(texts))
	for i, text := range texts {
		out[i] = LogLine{Time: l.Time, Stream: l.Stream, Text: text, Partial: l.Partial && i == len(texts)-1}
	}
	return out
}

// ReadLog calls each for the lines of a sandbox's log, oldest first. With Follow it returns when the sandbox is
// not running any more and all its lines have been given, or when ctx is done.
func ReadLog(ctx context.Context, d Dirs, id string, o LogOptions, each func(LogLine) error) error {
	if _, err := os.Stat(d.Sandbox(id)); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	keep := func(l *LogLine) bool { return !l.Time.Before(o.Since) }
	return readLines(ctx, d.Log(id), o, LogLine.split, keep, func() bool { return !running(d, id) }, each)
}

func running(d Dirs, id string) bool {
	r, err := ReadRecord(d, id)
	return err == nil && r.State == Running && Held(d, r.KeeperName())
}
