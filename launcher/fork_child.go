package launcher

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The runtime's own preparations for a fork, as syscall.forkExec makes them: no signal may run a Go handler in
// the child. The Go linker keeps these names open because gVisor forks in the same way.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// forkRaw forks. In the child it never returns, allocates nothing, grows no stack and calls nothing but the
// kernel: every function it calls is nosplit.
//
//go:noinline
//go:norace
//go:nocheckptr
func forkRaw(f *family) (uintptr, unix.Errno) {
	beforeFork()
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, f.flags|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		afterFork()
		return pid, errno
	}
	afterForkInChild()
	follow(f.first, 0, f)
	if len(f.second) == 0 {
		exit(255) // a script without a successful execve has reported before
	}
	// From here on signals are taken by rt_sigtimedwait only; a blocked signal reaches process 1 although it
	// has no handler, pid_namespaces(7).
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&f.all)), 0, 8, 0, 0)
	app, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		fail(f, 1, 0, errno)
	}
	if app == 0 {
		unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&f.none)), 0, 8, 0, 0)
		follow(f.second, 1, f)
		exit(255)
	}
	unix.RawSyscall(unix.SYS_CLOSE_RANGE, 0, ^uintptr(0)>>32, 0)
	follow(f.behind, 2, f)
	lookAfter(app, f)
	return 0, 0
}

// lookAfter is the whole work of init.
//
//go:nosplit
//go:norace
//go:nocheckptr
func lookAfter(app uintptr, f *family) {
	for {
		sig, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&f.all)), 0, 0, 8, 0, 0)
		if errno != 0 {
			continue
		}
		if sig != uintptr(unix.SIGCHLD) {
			unix.RawSyscall(unix.SYS_KILL, app, sig, 0)
			continue
		}
		for {
			pid, _, _ := unix.RawSyscall6(unix.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&f.status)), unix.WNOHANG, 0, 0, 0)
			if int(pid) <= 0 {
				break
			}
			if pid != app {
				continue
			}
			if s := f.status & 0x7f; s != 0 {
				exit(uintptr(128 + s))
			}
			exit(uintptr(f.status>>8) & 0xff)
		}
	}
}

// follow carries out a script.
//
//go:nosplit
//go:norace
//go:nocheckptr
func follow(calls []call, script uint32, f *family) {
	var denied unix.Errno
	for i := range calls {
		c := &calls[i]
		r, _, errno := unix.RawSyscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
		switch c.on {
		case mustWork:
			if errno != 0 {
				fail(f, script, uint32(i), errno)
			}
		case orGone:
			if errno != 0 && errno != unix.ENOENT {
				fail(f, script, uint32(i), errno)
			}
		case oneByte:
			if errno != 0 || r != 1 {
				exit(255)
			}
		case tryNext:
			if errno != unix.ENOENT && errno != unix.ENOTDIR && denied == 0 {
				denied = errno
			}
			if i == len(calls)-1 {
				if denied == 0 {
					denied = errno
				}
				fail(f, script, uint32(i), denied)
			}
		}
	}
}

//go:nosplit
//go:norace
//go:nocheckptr
func fail(f *family, script, index uint32, errno unix.Errno) {
	f.report.Script, f.report.Index, f.report.Errno = script, index, uint32(errno)
	unix.RawSyscall(unix.SYS_WRITE, syncFD, uintptr(unsafe.Pointer(&f.report)), unsafe.Sizeof(f.report))
	exit(255)
}

//go:nosplit
//go:norace
func exit(code uintptr) {
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, code, 0, 0)
	}
}
