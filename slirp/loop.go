package slirp

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxLoops: each loop keeps one CPU busy, and apps and their clients want some too.
	maxLoops = 4

	// loopEvents is how many events are taken at once.
	loopEvents = 128

	// dialCheck is how often dials are looked at that do not get on.
	dialCheck = time.Second

	// copyBuffer is what is read at once. Less than that is copied through it; who fills it is spliced from then on.
	copyBuffer = 64 << 10
)

// loops join the kernel's TCP sockets in pairs. A few threads wait for all of them (epoll(7)): a goroutine for each
// direction would cost two more switches and a read in vain for every message of a connection that asks and answers,
// which is what most connections do. The threads live in the router's namespace, where they dial apps.
type loops struct {
	netns int // of the router

	once sync.Once
	err  error
	all  []*loop
	next atomic.Uint32
}

// start makes the threads at the first need. The error is final.
func (s *loops) start() error {
	s.once.Do(func() {
		for range max(1, min(maxLoops, runtime.GOMAXPROCS(0)/2)) {
			l, err := newLoop(s.netns)
			if err != nil {
				s.err = err
				s.stop()
				return
			}
			s.all = append(s.all, l)
		}
	})
	return s.err
}

// pick spreads pairs over the threads.
func (s *loops) pick() *loop { return s.all[int(s.next.Add(1))%len(s.all)] }

// relay joins two connected sockets, which it owns from now on, until both directions have ended or ctx has. An end of
// stream is passed on as one; an error on either side, or the end of ctx, ends both with a reset. It returns how many
// bytes went from a to b and from b to a.
func (s *loops) relay(ctx context.Context, a, b int) (sent, received int64) {
	if err := s.start(); err != nil {
		resetFD(a)
		resetFD(b)
		return 0, 0
	}
	l := s.pick()
	p := &pair{loop: l, fd: [2]int{a, b}, over: make(chan struct{})}
	if !l.post(func() { p.begin() }) {
		resetFD(a)
		resetFD(b)
		return 0, 0
	}
	stop := context.AfterFunc(ctx, func() { l.post(p.abort) })
	<-p.over
	stop()
	return p.way[0].moved, p.way[1].moved
}

// close resets every pair and ends the threads.
func (s *loops) close() {
	s.once.Do(func() { s.err = errThreadGone })
	s.stop()
}

func (s *loops) stop() {
	for _, l := range s.all {
		l.post(func() { l.leaving = true })
	}
	for _, l := range s.all {
		<-l.done
	}
}

// loop is one thread. Everything but post belongs to it.
type loop struct {
	epoll, wake int
	done        chan struct{}

	mu     sync.Mutex
	posted []func()
	gone   bool

	netns   int // of the router
	sources []source
	turn    int32 // numbers registrations, so that an event for a closed descriptor is not taken for its successor's
	pairs   map[*pair]struct{}
	dials   map[*appDial]struct{}
	resting map[*taker]time.Time // that could not accept, and when they may again
	looked  time.Time            // when these two were seen to
	ready   []*pair              // that have more to do
	pipes   []pipe               // that are free, and empty
	buf     []byte
	leaving bool
}

// source is what a descriptor's events are for. The index in loop.sources is the descriptor.
type source struct {
	turn int32
	of   eventTaker
	side int
}

// eventTaker gets the events of a descriptor (EPOLL*), on the loop's thread.
type eventTaker interface{ take(side int, events uint32) }

func newLoop(netns int) (*loop, error) {
	l := &loop{netns: netns, wake: -1, done: make(chan struct{}), pairs: make(map[*pair]struct{}), dials: make(map[*appDial]struct{}), resting: make(map[*taker]time.Time), buf: make([]byte, copyBuffer)}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("making an event loop: %w", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		unix.Close(l.epoll)
		return nil, fmt.Errorf("making an event loop: %w", err)
	}
	l.watch(l.wake, unix.EPOLLIN, l, 0)
	ready := make(chan error, 1)
	go ownThread(func() { l.run(ready) })
	return l, <-ready
}

// post has f run on the loop's thread. It reports false, and f will not run, if the loop has ended.
func (l *loop) post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return false
	}
	l.posted = append(l.posted, f)
	if len(l.posted) == 1 {
		_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // cannot fail: the counter is far from full
	}
	return true
}

func (l *loop) take(int, uint32) {
	var b [8]byte
	_, _ = unix.Read(l.wake, b[:])
	l.mu.Lock()
	posted := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, f := range posted {
		f()
	}
}

func (l *loop) run(ready chan<- error) {
	defer close(l.done)
	defer l.end()
	if err := unix.Setns(l.netns, unix.CLONE_NEWNET); err != nil {
		ready <- fmt.Errorf("entering the router's network namespace: %w", err)
		return
	}
	ready <- nil
	events := make([]unix.EpollEvent, loopEvents)
	for !l.leaving {
		wait := -1
		if len(l.ready) > 0 {
			wait = 0
		} else if d := l.check(); d > 0 {
			wait = int(d.Milliseconds())
		}
		n, err := l.await(events, wait)
		if err != 0 && err != unix.EINTR {
			return
		}
		for i := range max(n, 0) {
			e := &events[i]
			if s := l.sources[e.Fd]; s.of != nil && s.turn == e.Pad {
				s.of.take(s.side, e.Events)
			}
		}
		if d := l.check(); d > 0 {
			if now := time.Now(); now.Sub(l.looked) >= d {
				l.looked = now
				l.overdue(now)
			}
		}
		again := l.ready
		l.ready = nil
		for _, p := range again {
			p.queued = false
			p.pump()
		}
	}
}

// check is how often something is to be looked at that no event tells of; 0: nothing is.
func (l *loop) check() time.Duration {
	switch {
	case len(l.resting) > 0:
		return acceptPause
	case len(l.dials) > 0:
		return dialCheck
	}
	return 0
}

// busyWait is for how long a loop that has just worked waits without telling the scheduler, in milliseconds. Else each of
// many short waits would hand its processor on, and wake threads that look for work in vain and take time from the apps.
// Longer than this nobody waits for the loop, to collect garbage for example.
const busyWait = 1

// await waits for events for so many milliseconds, -1: for ever.
func (l *loop) await(events []unix.EpollEvent, wait int) (int, unix.Errno) {
	quick := wait
	if wait != 0 {
		quick = busyWait
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(quick), 0, 0)
	if n != 0 || errno != 0 || wait == 0 {
		return int(n), errno
	}
	n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(wait), 0, 0)
	return int(n), errno
}

// in runs f in another network namespace and comes back. A thread that cannot come back ends: no socket may be made in
// the wrong place.
func (l *loop) in(netns int, f func() error) error {
	if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the sandbox's network namespace: %w", err)
	}
	ferr := f()
	if err := unix.Setns(l.netns, unix.CLONE_NEWNET); err != nil {
		l.leaving = true
		return errors.Join(ferr, fmt.Errorf("coming back to the router's network namespace: %w", err))
	}
	return ferr
}

// end resets what is left.
func (l *loop) end() {
	l.mu.Lock()
	l.gone = true
	posted := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, f := range posted {
		f()
	}
	for d := range l.dials {
		d.fail()
	}
	for p := range l.pairs {
		p.abort()
	}
	for _, p := range l.pipes {
		p.close()
	}
	unix.Close(l.wake)
	unix.Close(l.epoll)
}

// watch asks for a descriptor's events. It goes with the descriptor's end.
func (l *loop) watch(fd int, events uint32, of eventTaker, side int) error {
	for len(l.sources) <= fd {
		l.sources = append(l.sources, make([]source, max(64, len(l.sources)))...)
	}
	l.turn++
	l.sources[fd] = source{l.turn, of, side}
	e := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: l.turn}
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &e)
}

// forget drops what a descriptor's events are for; the caller closes it.
func (l *loop) forget(fd int) {
	if fd < len(l.sources) {
		l.sources[fd] = source{}
	}
}

// unwatch ends the events of a descriptor that stays open.
func (l *loop) unwatch(fd int) {
	l.forget(fd)
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil) // fails if it is not watched
}

// pipe is what bytes wait in between two sockets, without leaving the kernel.
type pipe struct{ r, w int }

// pipeSize is what Linux gives an ordinary user at most (fs.pipe-max-size); it is asked for, not counted on.
const pipeSize = 1 << 20

// keepPipes bounds the pipes that wait for the next bulk transfer: an ordinary user has 64 MiB in pipes before the
// kernel makes new ones small (fs.pipe-user-pages-soft).
const keepPipes = 8

func (l *loop) getPipe() (pipe, bool) {
	if n := len(l.pipes); n > 0 {
		p := l.pipes[n-1]
		l.pipes = l.pipes[:n-1]
		return p, true
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return pipe{}, false // out of descriptors: bytes can still be copied
	}
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize)
	return pipe{fds[0], fds[1]}, true
}

// putPipe takes an empty pipe back.
func (l *loop) putPipe(p pipe) {
	if len(l.pipes) >= keepPipes {
		p.close()
		return
	}
	l.pipes = append(l.pipes, p)
}

func (p pipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}

// receive, transmit and move do not wait, so they need not tell the scheduler that they might.

func receive(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func transmit(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

func move(from, to, most int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(most), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	return int(n), errno
}

// resetFD ends a connection with a reset.
func resetFD(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 0})
	unix.Close(fd)
}
