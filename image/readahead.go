package image

import "io"

// Read-ahead between the steps of unpacking, so that each runs on a processor of its own: 8 × 256 KiB is more than a
// step falls behind another on a small file, and little memory for four layers at once.
const (
	aheadChunks = 8
	aheadSize   = 256 << 10
)

// readAhead reads from a source in a goroutine. It must be closed, also after an error; Close does not close the
// source, and returns when the goroutine no longer reads it, which a source that blocks must end by itself.
type readAhead struct {
	full  chan chunk
	empty chan []byte
	quit  chan struct{}
	cur   chunk
	err   error
}

type chunk struct {
	buf  []byte // whole
	data []byte // what is left to read of it
	err  error  // after data
}

func newReadAhead(r io.Reader) *readAhead {
	a := &readAhead{full: make(chan chunk, aheadChunks), empty: make(chan []byte, aheadChunks), quit: make(chan struct{})}
	for range aheadChunks {
		a.empty <- nil // made when first used: most layers are small
	}
	go a.run(r)
	return a
}

func (a *readAhead) run(r io.Reader) {
	defer close(a.full)
	for {
		var buf []byte
		select {
		case buf = <-a.empty:
		case <-a.quit:
			return
		}
		if buf == nil {
			buf = make([]byte, aheadSize)
		}
		n, err := fill(r, buf)
		select {
		case a.full <- chunk{buf: buf, data: buf[:n], err: err}:
		case <-a.quit:
			return
		}
		if err != nil {
			return
		}
	}
}

// fill is io.ReadFull without its io.ErrUnexpectedEOF, which here must mean that the source was cut off.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// next makes the current chunk one with data in it.
func (a *readAhead) next() error {
	for len(a.cur.data) == 0 {
		if a.err != nil {
			return a.err
		}
		if a.cur.buf != nil {
			a.empty <- a.cur.buf // never blocks: there are as many places as chunks
			a.cur.buf = nil
		}
		c, ok := <-a.full
		if !ok {
			a.err = io.ErrClosedPipe
			continue
		}
		a.cur, a.err = c, c.err
	}
	return nil
}

// Read implements io.Reader.
func (a *readAhead) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := a.next(); err != nil {
		return 0, err
	}
	n := copy(p, a.cur.data)
	a.cur.data = a.cur.data[n:]
	return n, nil
}

// Close ends the goroutine and waits for it.
func (a *readAhead) Close() error {
	close(a.quit)
	for range a.full {
	}
	return nil
}
