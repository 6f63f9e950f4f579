package launcher

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// lineFile is a file of JSON documents, one a line. When it is full it becomes NAME.1, NAME.1 becomes NAME.2, and
// NAME.2 is forgotten.
type lineFile struct {
	name  string
	limit int64 // bytes of one file
	f     *os.File
	size  int64
}

// openLineFile opens for appending, and makes the file but not its folder.
func openLineFile(name string, limit int64) (*lineFile, error) {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, OwnerOnly(0o644))
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open log: %w", err)
	}
	return &lineFile{name: name, limit: limit, f: f, size: st.Size()}, nil
}

// write adds a document. A full disk loses it: who writes must go on.
func (l *lineFile) write(doc any) {
	b, err := json.Marshal(doc)
	if err != nil {
		return
	}
	b = append(b, '\n')
	if l.size+int64(len(b)) > l.limit && wall.Up("log limit") {
		l.rotate()
	}
	n, _ := l.f.Write(b)
	l.size += int64(n)
}

func (l *lineFile) rotate() {
	_ = os.Rename(l.name+".1", l.name+".2")
	if err := os.Rename(l.name, l.name+".1"); err != nil {
		return
	}
	f, err := os.OpenFile(l.name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, OwnerOnly(0o644))
	if err != nil {
		return
	}
	l.f.Close()
	l.f, l.size = f, 0
}

func (l *lineFile) close() error { return l.f.Close() }

// removeLines removes a lineFile and those it was before. None is no error.
func removeLines(name string) error {
	var faults []error
	for _, f := range []string{name, name + ".1", name + ".2"} {
		if err := os.Remove(f); !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// LogOptions choose the lines that ReadLog gives.
type LogOptions struct {
	Follow bool      // wait for more until nothing can come any more
	Since  time.Time // zero: from the start
	Tail   int       // the last so many lines; below 0: all
}

// readLines calls each for the documents of a lineFile that keep wants, oldest first; split, if not nil, takes apart what one
// document holds. o.Since is keep's affair. With
// o.Follow it returns when ended says that nothing more is written, and all has been given, or when ctx is done. A file
// that is not there is empty.
func readLines[T any](ctx context.Context, name string, o LogOptions, split func(T) []T, keep func(*T) bool, ended func() bool, each func(T) error) error {
	give := func(line T) error {
		if !keep(&line) {
			return nil
		}
		return each(line)
	}
	var last []T
	collect := give
	if o.Tail >= 0 {
		collect = func(line T) error {
			if o.Tail == 0 || !keep(&line) {
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
	if split != nil {
		collect, give = eachPart(split, collect), eachPart(split, give)
	}
	for _, old := range []string{name + ".2", name + ".1"} {
		if err := readOld(old, collect); err != nil {
			return err
		}
	}
	r, err := openLines[T](name)
	if err != nil {
		return err
	}
	defer func() { r.close() }()
	if err := r.all(collect); err != nil {
		return err
	}
	for _, line := range last {
		if err := each(line); err != nil {
			return err
		}
	}
	for o.Follow {
		over := ended() // asked before reading: what was written until then is read below
		if err := r.all(give); err != nil {
			return err
		}
		if r.replaced(name) {
			next, err := openLines[T](name)
			if err != nil {
				return err
			}
			if err := r.all(give); err != nil {
				next.close()
				return err
			}
			r.close()
			r = next
			continue
		}
		if over {
			return nil
		}
		if err := waitForChange(ctx, name); err != nil || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

func eachPart[T any](split func(T) []T, each func(T) error) func(T) error {
	return func(whole T) error {
		for _, part := range split(whole) {
			if err := each(part); err != nil {
				return err
			}
		}
		return nil
	}
}

func readOld[T any](name string, each func(T) error) error {
	r, err := openLines[T](name)
	if err != nil {
		return err
	}
	defer r.close()
	return r.all(each)
}

// waitForChange returns when the file was written or moved, or after half a second, in which who writes it may have
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
		if err != nil { // no file yet, or no watches left for this user
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 50); n > 0 {
			return nil
		}
	}
	return nil
}

// lineReader reads whole lines and keeps the start of one that is still being written.
type lineReader[T any] struct {
	f    *os.File // nil: it is not there yet
	in   *bufio.Reader
	part []byte
}

func openLines[T any](name string) (*lineReader[T], error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return &lineReader[T]{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	return &lineReader[T]{f: f, in: bufio.NewReaderSize(f, 64<<10)}, nil
}

func (r *lineReader[T]) close() {
	if r.f != nil {
		r.f.Close()
	}
}

// replaced says whether another file has the name by now.
func (r *lineReader[T]) replaced(name string) bool {
	now, err := os.Stat(name)
	if err != nil || r.f == nil {
		return err == nil
	}
	st, err := r.f.Stat()
	return err == nil && !os.SameFile(st, now)
}

func (r *lineReader[T]) all(each func(T) error) error {
	for r.f != nil {
		b, err := r.in.ReadBytes('\n')
		r.part = append(r.part, b...)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		var line T
		bad := json.Unmarshal(r.part, &line)
		r.part = r.part[:0]
		if bad != nil {
			continue // cut off by a full disk or a crash
		}
		if err := each(line); err != nil {
			return err
		}
	}
	return nil
}
