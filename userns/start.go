package userns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// syncVariable tells Enter on which descriptor the parent says that the maps are written. It is this package's own
// affair: Start sets it and Enter unsets it.
const syncVariable = "WHISK_USERNS_SYNC"

// What the parent says on that descriptor.
const (
	mapped       = 'm'
	mappedSingle = '1' // setgroups(2) is denied
)

// Stage is a hidden stage of this binary that is to run as root of a new user namespace.
type Stage struct {
	Name  string     // argv[0], by which main dispatches
	Args  []string   // argv[1:]
	Env   []string   // exact: nothing is inherited
	Files []*os.File // descriptors 3 and up; nil entries are closed in the stage
	// Stdin, Stdout and Stderr are descriptors 0 to 2; nil is /dev/null.
	Stdin, Stdout, Stderr *os.File
	// Cloneflags are further namespaces, CLONE_NEW*; CLONE_NEWUSER and CLONE_NEWNS are always there.
	Cloneflags uintptr
	// Pdeathsig is sent to the stage when this process ends, however it ends; 0: the stage lives on.
	Pdeathsig syscall.Signal
	Setsid    bool   // a session of its own, setsid(2)
	Dir       string // working directory; empty: this process's
}

// Process is a stage that runs. Its methods may be called at once from any goroutine.
type Process struct {
	Pid int // as this process sees it

	mu     sync.Mutex
	reaped bool // the pid may be somebody else's by now
	status syscall.WaitStatus
	err    error
	done   chan struct{}
}

// Start runs the stage: this program again, from a mount that nobody can write to, as root of a new user namespace with this map. It returns when the maps
// are written and the stage was let go; ctx bounds only that, not the stage's life. A machine that refuses is an
// *Error. The stage's main must call Enter first.
func (m Map) Start(ctx context.Context, s Stage) (*Process, error) {
	wait, release, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting stage %s: %w", s.Name, err)
	}
	defer release.Close()
	defer wait.Close()

	p := &Process{done: make(chan struct{})}
	started := make(chan error)
	var written func() error
	go func() {
		if s.Pdeathsig != 0 {
			// It is sent when the thread that forked ends, not the process (prctl(2)), and Go ends threads: this one
			// is held for as long as the stage lives.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
		}
		pid, err := s.fork(wait, func(pid int) { written = m.begin(ctx, pid) })
		p.Pid = pid
		started <- err
		if err == nil {
			p.reap()
		}
	}()
	if err := <-started; err != nil {
		switch err {
		case syscall.EPERM, syscall.EACCES, syscall.ENOSPC, syscall.EUSERS, syscall.EINVAL, syscall.ENOSYS:
			return nil, diagnose(StepClone, err)
		}
		return nil, fmt.Errorf("starting stage %s: %w", s.Name, err) // nothing to do with namespaces: no memory, no such Dir
	}
	if err := written(); err != nil {
		return nil, errors.Join(err, p.Kill(), p.gone())
	}
	word := byte(mapped)
	if m.Single {
		word = mappedSingle
	}
	if _, err := release.Write([]byte{word}); err != nil {
		return nil, errors.Join(fmt.Errorf("starting stage %s: it ended before it was mapped: %w", s.Name, err), p.Kill(), p.gone())
	}
	return p, nil
}

// everyCapability lists what the kernel knows: it refuses to make ambient what it does not.
func everyCapability() []uintptr {
	var caps []uintptr
	for c := uintptr(0); ; c++ {
		if v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err != nil || v < 0 {
			return caps
		}
		caps = append(caps, c)
	}
}

// reap waits for the stage to end. The pid is freed under the lock, so that Kill cannot hit a stranger.
func (p *Process) reap() {
	var err error
	for {
		err = unix.Waitid(unix.P_PID, p.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	p.mu.Lock()
	if err == nil {
		_, err = syscall.Wait4(p.Pid, &p.status, 0, nil)
	}
	p.reaped = true
	if err != nil {
		p.err = fmt.Errorf("waiting for process %d: %w", p.Pid, err)
	}
	p.mu.Unlock()
	close(p.done)
}

// Wait blocks until the stage has ended and tells how. It may be called more than once.
func (p *Process) Wait() (syscall.WaitStatus, error) {
	<-p.done
	return p.status, p.err
}

// Done is closed when the stage has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill sends SIGKILL; a stage that has ended already is no error.
func (p *Process) Kill() error { return p.Signal(syscall.SIGKILL) }

// Signal sends a signal; a stage that has ended already is no error.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return nil
	}
	if err := syscall.Kill(p.Pid, sig); err != nil && err != syscall.ESRCH {
		return fmt.Errorf("sending %v to process %d: %w", sig, p.Pid, err)
	}
	return nil
}

// gone waits for a stage that was killed; how it ended says nothing.
func (p *Process) gone() error {
	_, err := p.Wait()
	return err
}
