package slirp

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// halfCloser is a connection whose sending side can end alone.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// resetter is a connection that has its own way of ending with a reset.
type resetter interface{ reset() }

// failer is a connection that has its own way of telling an error to who does not read.
type failer interface {
	failed(over <-chan struct{}) bool
}

// relayGrace is how long one side may take to receive the last bytes of another one that has failed.
const relayGrace = 100 * time.Millisecond

// relayBuffer is large enough for a segment of the links' size to pass in one piece.
const relayBuffer = 128 << 10

// relay joins two connections until both directions have ended or ctx has. An end of stream is passed on as one; an error
// on either side, or the end of ctx, ends both with a reset. It owns both connections, and returns
// how many bytes went from a to b and from b to a.
func relay(ctx context.Context, a, b halfCloser) (sent, received int64) {
	broken := sync.OnceFunc(func() {
		reset(a)
		reset(b)
	})
	stop := context.AfterFunc(ctx, broken)
	oneWay := func(dst, src halfCloser) int64 {
		n, err := copyStream(dst, src)
		if err != nil || dst.CloseWrite() != nil {
			broken()
		}
		return n
	}
	over := make(chan struct{})
	var watchers sync.WaitGroup
	for _, c := range []halfCloser{a, b} {
		watchers.Go(func() {
			if !failed(c, over) {
				return
			}
			// What came before the error may still be passed on, if the other side takes it.
			grace := time.NewTimer(relayGrace)
			defer grace.Stop()
			select {
			case <-grace.C:
				broken()
			case <-over:
			}
		})
	}
	var wg sync.WaitGroup
	wg.Go(func() { received = oneWay(a, b) })
	sent = oneWay(b, a)
	wg.Wait()
	close(over)
	watchers.Wait()
	if !stop() {
		broken() // waits for the resets to be sent
	}
	a.Close()
	b.Close()
	return sent, received
}

// lent are the relays' buffers, each for as long as it has bytes in it: most connections wait most of the time.
var lent = sync.Pool{New: func() any { return new([relayBuffer]byte) }}

// awaiter is a connection that can be waited for without a buffer.
type awaiter interface {
	// await returns when a read would not wait.
	await() error
}

// copyStream copies until the end of the stream. Between two of the kernel's connections the bytes stay in the kernel:
// io.Copy is splice(2) there.
func copyStream(dst, src halfCloser) (n int64, err error) {
	_, kernel := dst.(*net.TCPConn)
	if _, ok := src.(*net.TCPConn); ok && kernel {
		return io.Copy(dst, src)
	}
	for {
		m, err := copyOnce(dst, src)
		n += int64(m)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// copyOnce waits for bytes and passes on what there is.
func copyOnce(dst, src halfCloser) (int, error) {
	b, n, err := readLent(src)
	if b == nil {
		return 0, err
	}
	defer lent.Put(b)
	if n > 0 {
		if m, werr := dst.Write(b[:n]); werr != nil {
			return m, werr
		}
	}
	return n, err
}

// readLent reads into a buffer that it takes when there is something to read. The caller gives it back, if it is not nil.
func readLent(src halfCloser) (b *[relayBuffer]byte, n int, err error) {
	if t, ok := src.(told); ok {
		src = t.halfCloser
	}
	if a, ok := src.(*answered); ok && len(a.rest) == 0 {
		src = a.TCPConn
	}
	if c, ok := src.(*net.TCPConn); ok {
		raw, err := c.SyscallConn()
		if err != nil {
			return nil, 0, err
		}
		var rerr error
		err = raw.Read(func(fd uintptr) bool {
			b = lent.Get().(*[relayBuffer]byte)
			for {
				if n, rerr = unix.Read(int(fd), b[:]); rerr != unix.EINTR {
					break
				}
			}
			if rerr == unix.EAGAIN {
				lent.Put(b)
				b = nil
				return false
			}
			return true
		})
		n = max(n, 0)
		if err == nil && rerr == nil && n == 0 {
			err = io.EOF
		}
		return b, n, errors.Join(err, rerr)
	}
	if c, ok := src.(awaiter); ok {
		if err := c.await(); err != nil {
			return nil, 0, err
		}
	}
	b = lent.Get().(*[relayBuffer]byte)
	n, err = src.Read(b[:])
	return b, n, err
}

// reset ends a connection with a reset, so that its peer sees an error and not an end of the stream.
func reset(c halfCloser) {
	switch c := c.(type) {
	case resetter:
		c.reset()
	case *net.TCPConn:
		_ = c.SetLinger(0) // fails only if the connection is closed already
	}
	c.Close()
}

// failed waits until a connection has an error, even if nobody reads from it: because its peer has ended sending before, or
// because what it sent is not taken. It reports false if over is closed first.
func failed(c halfCloser, over <-chan struct{}) bool {
	switch c := c.(type) {
	case failer:
		return c.failed(over)
	case *net.TCPConn:
		return failedKernel(c, over)
	}
	return false
}

// failedKernel waits with a descriptor of its own, since package net lets one goroutine wait for a descriptor at a time.
func failedKernel(c *net.TCPConn, over <-chan struct{}) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	fd := -1
	if cerr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil || err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), "tcp")
	defer f.Close()
	end := make(chan struct{})
	defer close(end)
	go func() {
		select {
		case <-over:
			_ = f.SetReadDeadline(time.Unix(1, 0))
		case <-end:
		}
	}()
	own, err := f.SyscallConn()
	if err != nil {
		return false
	}
	return own.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(fds, 0)
		return err == nil && n > 0 && fds[0].Revents&unix.POLLERR != 0
	}) == nil
}

// relayKernel is relay for two of the kernel's connections.
func relayKernel(ctx context.Context, l *loops, a, b *net.TCPConn) (sent, received int64) {
	x, aerr := detach(a)
	y, berr := detach(b)
	switch {
	case aerr == nil && berr == nil:
		return l.relay(ctx, x, y)
	case aerr == nil:
		resetFD(x)
	case berr == nil:
		resetFD(y)
	}
	return 0, 0
}

// detach takes a connection away from Go's poller, which would wake up for every event of it too. It owns the
// connection: on an error it is reset.
func detach(c *net.TCPConn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
		err = errors.Join(err, cerr)
	}
	if err != nil {
		reset(c)
		return -1, err
	}
	c.Close()
	return fd, nil
}
