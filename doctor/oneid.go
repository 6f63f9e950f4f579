package doctor

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Arguments of processes that the stage starts to try something on them, or in them.
const (
	notifies = "notifies"
	waits    = "waits"
)

// tryNotify installs, in a process of its own, a filter that somebody else answers for, seccomp_unotify(2). A kernel that has it
// may refuse all the same: an outer engine's filter forbids it, or has such a filter already (EBUSY).
func tryNotify() error {
	pid, err := syscall.ForkExec("/proc/self/exe", []string{StageName, notifies}, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return fmt.Errorf("start a process: %w", err)
	}
	ws, err := await(pid)
	switch {
	case err != nil:
		return err
	case ws.Exited() && ws.ExitStatus() == 0:
		return nil
	case ws.Exited():
		return fmt.Errorf("seccomp: %w", syscall.Errno(ws.ExitStatus()))
	}
	return fmt.Errorf("seccomp: the process ended with signal %d", ws.Signal())
}

// notify is what that process does. Its exit code is the errno; those of seccomp(2) are below 134.
func notify() int {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return errnoOf(err)
	}
	allow := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}
	prog := unix.SockFprog{Len: uint16(len(allow)), Filter: &allow[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(allow)
	return int(errno)
}

// tryTrace stops a process as whisk does to move one that changes its user, ptrace(2).
func tryTrace() error {
	hold, give, err := os.Pipe()
	if err != nil {
		return err
	}
	defer give.Close()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{StageName, waits}, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{hold.Fd(), 1, 2}, Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	hold.Close()
	if err != nil {
		return fmt.Errorf("start a process: %w", err)
	}
	runtime.LockOSThread() // a tracer is a thread
	defer runtime.UnlockOSThread()
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0)
	_ = syscall.Kill(pid, syscall.SIGKILL)
	if _, err := await(pid); err != nil {
		return err
	}
	if errno != 0 {
		return fmt.Errorf("ptrace: %w", errno)
	}
	return nil
}

// await waits for a process that has been started here.
func await(pid int) (syscall.WaitStatus, error) {
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		if err == syscall.EINTR || err == nil && ws.Stopped() {
			continue
		}
		if err != nil {
			return ws, fmt.Errorf("wait for a process: %w", err)
		}
		return ws, nil
	}
}

func errnoOf(err error) int {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return int(errno)
	}
	return int(unix.EINVAL)
}
