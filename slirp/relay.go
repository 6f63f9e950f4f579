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

// copyStream copies until the end of the stream. Between two of the kernel's connections the bytes stay in the kernel
// (io.Copy is splice(2) there); for any other pair the wrappers hide *net.TCPConn's own ways of copying, which fall back
// to small buffers.
func copyStream(dst, src halfCloser) (int64, error) {
	_, kernel := dst.(*net.TCPConn)
	if _, ok := src.(*net.TCPConn); ok && kernel {
		return io.Copy(dst, src)
	}
	return io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, relayBuffer))
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
