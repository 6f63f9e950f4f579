package launcher

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"
)

// logBench makes a sandbox's folder and its log.
func logBench(t *testing.T) (Dirs, string, *Log) {
	t.Helper()
	d := Dirs{Data: t.TempDir(), Run: t.TempDir()}
	id := NewID()
	if err := os.MkdirAll(d.Sandbox(id), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := OpenLog(d.Log(id))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return d, id, l
}

func readAll(t *testing.T, d Dirs, id string, o LogOptions) []string {
	t.Helper()
	var got []string
	if err := ReadLog(t.Context(), d, id, o, func(l LogLine) error {
		got = append(got, l.Text)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestLogKeepsLinesAndTail(t *testing.T) {
	d, id, l := logBench(t)
	l.Copy(strings.NewReader("one\ntwo\n\nfour without newline"), "stdout")
	if got := strings.Join(readAll(t, d, id, LogOptions{Tail: -1}), "|"); got != "one|two||four without newline" {
		t.Errorf("all: got %q", got)
	}
	if got := strings.Join(readAll(t, d, id, LogOptions{Tail: 2}), "|"); got != "|four without newline" {
		t.Errorf("tail 2: got %q", got)
	}
	if got := readAll(t, d, id, LogOptions{Tail: 0}); len(got) != 0 {
		t.Errorf("tail 0: got %q", got)
	}
	if got := readAll(t, d, id, LogOptions{Tail: -1, Since: time.Now().Add(time.Hour)}); len(got) != 0 {
		t.Errorf("since the future: got %q", got)
	}
}

func TestLogIsBounded(t *testing.T) {
	d, id, l := logBench(t)
	line := strings.Repeat("x", 8<<10) + "\n"
	for range 4 * logFileSize / len(line) {
		l.Copy(strings.NewReader(line), "stdout")
	}
	entries, err := os.ReadDir(d.Sandbox(id))
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if len(entries) != 3 || total > 3*logFileSize {
		t.Errorf("want three files of at most %d bytes together, got %v, %d bytes", 3*logFileSize, entries, total)
	}
	if got := readAll(t, d, id, LogOptions{Tail: 3}); len(got) != 3 {
		t.Errorf("tail over rotated files: got %d lines", len(got))
	}
}

// ptyEnd answers EIO before and after its last words, as a pty's master may.
type ptyEnd struct{ steps []string }

func (p *ptyEnd) Read(b []byte) (int, error) {
	if len(p.steps) == 0 {
		return 0, unix.EIO
	}
	s := p.steps[0]
	p.steps = p.steps[1:]
	if s == "EIO" {
		return 0, unix.EIO
	}
	return copy(b, s), nil
}

func TestLogTakesTheLastWordsOfATerminal(t *testing.T) {
	d, id, l := logBench(t)
	l.Copy(&ptyEnd{[]string{"first\n", "EIO", "last\n"}}, "stdout")
	if got := strings.Join(readAll(t, d, id, LogOptions{Tail: -1}), "|"); got != "first|last" {
		t.Errorf("got %q", got)
	}
}

func TestLogFollowsUntilTheSandboxEnds(t *testing.T) {
	d, id, l := logBench(t)
	network := "net"
	if err := os.MkdirAll(d.Network(network), 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(d.Network(network), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := TakeLock(lock); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() }) // and not when the collector likes
	r := &Record{Spec: Spec{Version: SpecVersion, ID: id, Network: network}, State: Running}
	if err := r.Write(d); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got := make(chan []string)
	go func() {
		var lines []string
		err := ReadLog(ctx, d, id, LogOptions{Follow: true, Tail: -1}, func(l LogLine) error {
			lines = append(lines, l.Text)
			return nil
		})
		got <- append(lines, fmt.Sprint(err))
	}()
	in, out := io.Pipe()
	go func() {
		for i := range 3 {
			fmt.Fprintf(out, "line %d\n", i)
			time.Sleep(10 * time.Millisecond)
		}
		out.Close()
	}()
	l.Copy(in, "stdout")
	r.State = Exited
	if err := r.Write(d); err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(<-got, "|"); all != "line 0|line 1|line 2|<nil>" {
		t.Errorf("got %q", all)
	}
}

// TestTee: what is passed on is what came, and the log has its lines whole, however the reads cut them.
func TestTee(t *testing.T) {
	d, id, l := logBench(t)
	in := "one\ntwo\n\nx" + strings.Repeat("é", maxLogLine) + "\nlast"
	var seen []LogLine
	l.Line = func(line LogLine) { seen = append(seen, line) }
	var out strings.Builder
	l.Tee(iotest.OneByteReader(strings.NewReader(in)), &out, "stdout")
	if out.String() != in {
		t.Errorf("passed on: %d bytes, want %d", out.Len(), len(in))
	}
	out.Reset()
	l.Tee(strings.NewReader("a\nb\nc"), &out, "stderr")
	var got []LogLine
	if err := ReadLog(t.Context(), d, id, LogOptions{Tail: -1}, func(line LogLine) error { got = append(got, line); return nil }); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for i, line := range got {
		text.WriteString(line.Text)
		if !line.Partial {
			text.WriteByte('\n')
		}
		if i < len(seen) && (seen[i].Text != line.Text || seen[i].Partial != line.Partial) {
			t.Errorf("line %d: told %+v, kept %+v", i, seen[i], line)
		}
	}
	if want := in + "\na\nb\nc\n"; text.String() != want {
		t.Errorf("logged %d bytes, want %d", text.Len(), len(want))
	}
	if len(seen) != len(got) || got[len(got)-1].Stream != "stderr" {
		t.Errorf("%d lines told, %d kept, the last on %s", len(seen), len(got), got[len(got)-1].Stream)
	}
	if got := readAll(t, d, id, LogOptions{Tail: 2}); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("the last two lines: %q", got)
	}
}

// TestTeeToNobody: an app whose reader has gone gets no further, as on a pipe of its own.
func TestTeeToNobody(t *testing.T) {
	_, _, l := logBench(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	l.Tee(iotest.ErrReader(io.ErrUnexpectedEOF), w, "stdout")
	endless := &countingReader{}
	l.Tee(endless, w, "stdout")
	if endless.reads != 1 {
		t.Errorf("%d reads after the reader had gone, want 1", endless.reads)
	}
}

type countingReader struct{ reads int }

func (c *countingReader) Read(p []byte) (int, error) { c.reads++; return copy(p, "y\n"), nil }
