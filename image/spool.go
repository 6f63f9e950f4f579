package image

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// spool is a file without a name that is read while it is still being written: a layer is unpacked while it
// arrives. A file without a name is gone with the process, however that ends (O_TMPFILE, open(2)).
type spool struct {
	f    *os.File
	mu   sync.Mutex
	more *sync.Cond
	n    int64
	done bool
	err  error
}

func newSpool(dir string) (*spool, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil { // some file systems have none, NFS among them
		f, terr := os.CreateTemp(dir, "layer-")
		if terr != nil {
			return nil, fmt.Errorf("making temporary file: %w", terr)
		}
		if err := os.Remove(f.Name()); err != nil {
			f.Close()
			return nil, fmt.Errorf("making temporary file: %w", err)
		}
		s := &spool{f: f}
		s.more = sync.NewCond(&s.mu)
		return s, nil
	}
	s := &spool{f: os.NewFile(uintptr(fd), "layer")}
	s.more = sync.NewCond(&s.mu)
	return s, nil
}

// fill copies all of r; each is told of the bytes so far. The reader sees the error that ended it.
func (s *spool) fill(r io.Reader, each func(int64)) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := s.f.WriteAt(buf[:n], s.n); werr != nil {
				err = werr
			} else {
				s.mu.Lock()
				s.n += int64(n)
				s.more.Broadcast()
				s.mu.Unlock()
				each(s.n)
			}
		}
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			s.end(err)
			return err
		}
	}
}

func (s *spool) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.done {
		s.done, s.err = true, err
		s.more.Broadcast()
	}
}

// failure is the error that ended the writing, if one did.
func (s *spool) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *spool) close() { s.f.Close() }

// reader reads from the start and waits for what has not come yet.
func (s *spool) reader() io.Reader { return &spoolReader{s: s} }

type spoolReader struct {
	s  *spool
	at int64
}

// Read implements io.Reader.
func (r *spoolReader) Read(b []byte) (int, error) {
	s := r.s
	s.mu.Lock()
	for r.at == s.n && !s.done {
		s.more.Wait()
	}
	n, done, err := s.n, s.done, s.err
	s.mu.Unlock()
	if r.at == n && done {
		if err != nil {
			return 0, err
		}
		return 0, io.EOF
	}
	got, err := s.f.ReadAt(b[:min(int64(len(b)), n-r.at)], r.at)
	r.at += int64(got)
	if err == io.EOF {
		err = nil
	}
	return got, err
}
