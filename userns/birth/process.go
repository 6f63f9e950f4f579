package birth

import (
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
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
	Setsid    bool // a session of its own, setsid(2)
	// TimerSlack is by how much a wait of the stage's threads may end late, PR_SET_TIMERSLACK(2const); 0: as this process's.
	TimerSlack time.Duration
	Dir        string // working directory; empty: this process's
	// Program is a copy of this program that nobody can write to, where the program itself cannot be mounted (UnmountableError);
	// nil: the program itself.
	Program *os.File
}

// Process is a stage that runs. Its methods may be called at once from any goroutine.
type Process struct {
	Pid int // as this process sees it

	mu      sync.Mutex
	release int  // of the stage; -1: it was let go, or has ended
	reaped  bool // the pid may be somebody else's by now
	status  syscall.WaitStatus
	err     error
	done    chan struct{}
}

// Begin runs the stage: this program again, from a mount that nobody can write to, in a new user namespace without a map. It
// returns when the program is executing; its main is to call Await first, which waits for Admit. born is called before that,
// when there is a process whose maps can be written; its pid is as this process sees it. An error that is a plain
// syscall.Errno is the kernel's answer to clone(2), or to a step after it; born may have been called for a process that has
// ended since.
func (s Stage) Begin(born func(pid int)) (*Process, error) {
	p := &Process{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		if s.Pdeathsig != 0 {
			// It is sent when the thread that forked ends, not the process (prctl(2)), and Go ends threads: this one
			// is held for as long as the stage lives.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
		}
		var err error
		p.Pid, p.release, err = s.fork(born)
		started <- err
		if err == nil {
			p.reap()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// What Admit says to Await.
const (
	mapped       = 'm'
	mappedSingle = '1'
)

// Admit lets a stage go whose maps are written; single tells it that only one id is, and setgroups(2) is denied. An error when it
// has ended already, or was let go before.
func (p *Process) Admit(single bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	word := byte(mapped)
	if single {
		word = mappedSingle
	}
	_, err := syscall.Write(p.release, []byte{word})
	p.closeRelease()
	return os.NewSyscallError("write", err)
}

// closeRelease is called with the lock held.
func (p *Process) closeRelease() {
	if p.release >= 0 {
		syscall.Close(p.release)
	}
	p.release = -1
}

// reap waits for the stage to end. The pid is freed under the lock, so that Kill cannot hit a stranger.
func (p *Process) reap() {
	err := ended(p.Pid)
	p.mu.Lock()
	if err == nil {
		_, err = syscall.Wait4(p.Pid, &p.status, 0, nil)
	}
	p.reaped = true
	if err != nil {
		p.err = os.NewSyscallError("wait4", err)
	}
	p.closeRelease()
	p.mu.Unlock()
	close(p.done)
}

// ended blocks until a child has ended, and leaves it to be reaped.
func ended(pid int) error {
	const (
		byPID   = 1          // P_PID
		options = 0x01000004 // WEXITED|WNOWAIT
	)
	for {
		_, _, e := syscall.Syscall6(syscall.SYS_WAITID, byPID, uintptr(pid), 0, options, 0, 0)
		switch e {
		case 0:
			return nil
		case syscall.EINTR:
		default:
			return e
		}
	}
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

// End kills the stage and returns when it is gone; how it ended says nothing.
func (p *Process) End() error {
	if err := p.Kill(); err != nil {
		return err
	}
	_, err := p.Wait()
	return err
}

// Signal sends a signal; a stage that has ended already is no error.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return nil
	}
	if err := syscall.Kill(p.Pid, sig); err != nil && err != syscall.ESRCH {
		return os.NewSyscallError("kill", err)
	}
	return nil
}
