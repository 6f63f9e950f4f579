package launcher

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// handle is a pidfd, pidfd_open(2): it stands for one process, whoever reaps it and whatever its number is given to
// then. It is safe for use by several goroutines.
type handle struct {
	mu sync.Mutex
	fd int // -1: closed
}

// signal sends a signal. One to a process that has ended is no error.
func (h *handle) signal(sig unix.Signal) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd < 0 {
		return nil
	}
	if err := unix.PidfdSendSignal(h.fd, sig, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("send signal %d: %w", sig, err)
	}
	return nil
}

func (h *handle) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	closeFD(&h.fd)
}

// Process is a further command in a sandbox.
type Process struct {
	pid  int // as its sandbox counts, if it has an init
	h    *handle
	done chan struct{}
	code int
}

// Exited is closed when the command has ended.
func (p *Process) Exited() <-chan struct{} { return p.done }

// ExitCode is as Sandbox.ExitCode.
func (p *Process) ExitCode() int { return p.code }

// Signal sends a signal to the command. One that has ended is no error.
func (p *Process) Signal(sig unix.Signal) error { return p.h.signal(sig) }

// PID tells the running commands of one sandbox apart.
func (p *Process) PID() int { return p.pid }

func (p *Process) end(code int) {
	p.code = code
	close(p.done)
	p.h.close()
}

// children are the further commands of a sandbox with an init. Init is their parent: it reaps them and tells of it,
// as of every orphan that it reaps. The zero value has none.
type children struct {
	mu      sync.Mutex
	running map[int]*Process
	// early are those that ended while one is being born, which may be that one. nil: none is being born.
	early map[int]unix.WaitStatus
	gone  bool // init, and with it all
}

// expect says that a child is being born; each is to be followed by one call of add or of give up.
func (c *children) expect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.early = map[int]unix.WaitStatus{}
}

// add takes the child that was expected; nil: it was not born.
func (c *children) add(p *Process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	early := c.early
	c.early = nil
	if p == nil {
		return
	}
	if ws, ok := early[p.pid]; ok {
		p.end(exitCode(ws))
		return
	}
	if c.gone {
		p.end(128 + int(unix.SIGKILL))
		return
	}
	if c.running == nil {
		c.running = map[int]*Process{}
	}
	c.running[p.pid] = p
}

// listen takes what init tells until init is gone, which takes all other processes along.
func (c *children) listen(r io.Reader) {
	var b [8]byte // a told
	for in := bufio.NewReader(r); ; {
		if _, err := io.ReadFull(in, b[:]); err != nil {
			break
		}
		pid, status := binary.NativeEndian.Uint32(b[:4]), binary.NativeEndian.Uint32(b[4:])
		c.ended(int(int32(pid)), unix.WaitStatus(status))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	for pid, p := range c.running {
		delete(c.running, pid)
		p.end(128 + int(unix.SIGKILL))
	}
}

func (c *children) ended(pid int, ws unix.WaitStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.running[pid]; p != nil {
		delete(c.running, pid)
		p.end(exitCode(ws))
		return
	}
	if c.early != nil {
		c.early[pid] = ws
	}
}

// exitCode is a program's exit code, 128+n for signal n.
func exitCode(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// waitFor reaps a child and returns its exit code.
func waitFor(pid int) int {
	var ws unix.WaitStatus
	if fd, err := unix.PidfdOpen(pid, 0); err == nil {
		// wait4(2) would also take the stops of a process that is being moved, see drop.go.
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			if _, err := unix.Poll(p, -1); err != unix.EINTR {
				break
			}
		}
		unix.Close(fd)
	}
	for {
		_, err := unix.Wait4(pid, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 255
		}
		return exitCode(ws)
	}
}
