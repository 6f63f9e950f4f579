package slirp

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/prefault"
)

// thread is an OS thread that lives in the router's network namespace and does what must happen there: making
// sockets. Everything else (connecting, reading, closing) works from any thread, so the calls stay short.
//
//	start ── unshare ──▶ serving ── stop ──▶ gone (the kernel thread with it, so its namespace can never leak)
type thread struct {
	netns int // descriptor of the router namespace, owned by the thread
	calls chan func()
	quit  chan struct{}
	done  chan struct{}
}

var errThreadGone = errors.New("network is closed")

// startThread makes a new network namespace, owned by the caller's user namespace, and a thread in it.
func startThread() (*thread, error) {
	t := &thread{netns: -1, calls: make(chan func()), quit: make(chan struct{}), done: make(chan struct{})}
	ready := make(chan error, 1)
	go ownThread(func() { t.serve(ready) })
	if err := <-ready; err != nil {
		return nil, err
	}
	return t, nil
}

// ownThread runs f on a thread that no other goroutine will get: the Go runtime ends it with f.
func ownThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The process's main thread cannot end: Go would park it in the router namespace for ever. While it is
		// held here, another goroutine is bound to run on another thread.
		next := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(next)
			f()
		}()
		<-next
		runtime.UnlockOSThread()
		return
	}
	f()
}

// serve runs on a thread of its own.
func (t *thread) serve(ready chan<- error) {
	defer close(t.done)
	prefault.Stack()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		ready <- fmt.Errorf("making a network namespace: %w", err)
		return
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		ready <- fmt.Errorf("opening the router's network namespace: %w", err)
		return
	}
	t.netns = fd
	defer unix.Close(fd)
	ready <- nil
	for {
		select {
		case call := <-t.calls:
			call()
		case <-t.quit:
			return
		}
	}
}

// do runs f in the router namespace and waits for it.
func (t *thread) do(f func() error) error {
	result := make(chan error, 1)
	select {
	case t.calls <- func() { result <- f() }:
		return <-result
	case <-t.done:
		return errThreadGone
	}
}

// in runs f in another network namespace and comes back. The caller is on the thread already. A thread that cannot
// come back ends, and the network with it: no socket may be made in the wrong place.
func (t *thread) in(netns int, f func() error) error {
	if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the sandbox's network namespace: %w", err)
	}
	ferr := f()
	if err := unix.Setns(t.netns, unix.CLONE_NEWNET); err != nil {
		close(t.quit)
		return errors.Join(ferr, fmt.Errorf("coming back to the router's network namespace: %w", err))
	}
	return ferr
}

// stop ends the thread and waits until it has let go of its namespace. It must be called once.
func (t *thread) stop() {
	select {
	case <-t.quit:
	default:
		close(t.quit)
	}
	<-t.done
}
