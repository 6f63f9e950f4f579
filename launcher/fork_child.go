package launcher

import (
	"syscall"
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

// All calls here are package syscall's: those of package unix pass through wrappers that read the thread's own memory, which
// away leaves behind.

// forkRaw forks. In the child it never returns, allocates nothing, grows no stack and calls nothing but the
// kernel: every function it calls is nosplit.
//
//go:noinline
//go:norace
//go:nocheckptr
func forkRaw(f *family) (uintptr, unix.Errno) {
	if f.away != nil {
		f.away.settle()
	}
	beforeFork()
	var pid uintptr
	var errno unix.Errno
	if f.between != nil && f.between.args.setTID != 0 {
		pid, _, errno = syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&f.between.args)), unsafe.Sizeof(f.between.args), 0)
	} else {
		pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, f.flags|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	}
	if errno != 0 || pid != 0 {
		afterFork()
		return pid, errno
	}
	if f.away != nil {
		afterForkInChild()
		goAway(f.away)
	} else {
		if f.between != nil {
			forkOnce(f.between)
		}
		afterForkInChild()
	}
	if f.init {
		// From here on signals are taken by rt_sigtimedwait only; a blocked signal reaches process 1 although it
		// has no handler, pid_namespaces(7).
		syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&f.all)), 0, 8, 0, 0)
	}
	follow(f)
	if !f.init {
		exit(255) // calls without a successful execve have reported before
	}
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 0, syncFD, 0)
	lookAfter(f)
	return 0, 0
}

// forkOnce is the whole work of a process in between: its child returns, and it ends.
//
//go:nosplit
//go:norace
//go:nocheckptr
func forkOnce(b *between) {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.CLONE_PIDFD)|uintptr(unix.SIGCHLD), 0, uintptr(unsafe.Pointer(&b.control.fd)), 0, 0, 0)
	if errno == 0 && pid == 0 {
		return
	}
	b.tell(pid, errno)
}

// tell says which the child is, and ends.
//
//go:nosplit
//go:norace
//go:nocheckptr
func (b *between) tell(pid uintptr, errno unix.Errno) {
	if errno != 0 {
		b.child = -int32(errno)
	} else {
		b.child = int32(pid)
		b.msg.Controllen = controlLen
	}
	syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(b.out), uintptr(unsafe.Pointer(&b.msg)), 0)
	exit(0)
}

// controlLen is the length of a control message with one descriptor.
const controlLen = unix.SizeofCmsghdr + 4

// lookAfter is the whole work of init.
//
//go:nosplit
//go:norace
//go:nocheckptr
func lookAfter(f *family) {
	for {
		sig, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&f.all)), 0, 0, 8, 0, 0)
		if errno != 0 {
			continue
		}
		if sig != uintptr(unix.SIGCHLD) {
			syscall.RawSyscall(unix.SYS_KILL, uintptr(f.app), sig, 0)
			continue
		}
		over := false
		for {
			pid, _, _ := syscall.RawSyscall6(unix.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&f.status)), unix.WNOHANG, 0, 0, 0)
			if int(pid) <= 0 {
				break
			}
			if int32(pid) == f.app {
				over = true
				f.code = f.status >> 8 & 0xff
				if f.status&0x7f != 0 {
					f.code = 128 + f.status&0x7f
				}
				continue // what ended before it is told of first
			}
			f.told.PID, f.told.Status = int32(pid), f.status
			syscall.RawSyscall(unix.SYS_WRITE, toldFD, uintptr(unsafe.Pointer(&f.told)), unsafe.Sizeof(f.told))
		}
		if over {
			exit(uintptr(f.code))
		}
	}
}

// follow carries out a script.
//
//go:nosplit
//go:norace
//go:nocheckptr
func follow(f *family) {
	var denied unix.Errno
	for i := range f.calls {
		c := &f.calls[i]
		r, errno := perform(c)
		switch c.on {
		case mustWork:
			if errno != 0 {
				fail(f, uint32(i), errno)
			}
		case orGone:
			if errno != 0 && errno != unix.ENOENT {
				fail(f, uint32(i), errno)
			}
		case orUnknown:
			if errno != 0 && errno != unix.EINVAL {
				fail(f, uint32(i), errno)
			}
		case orClosed:
			if errno != 0 && errno != unix.ENOSYS && errno != unix.EPERM {
				fail(f, uint32(i), errno)
			}
		case oneByte:
			if errno != 0 || r != 1 {
				exit(255)
			}
		case tryNext:
			if errno != unix.ENOENT && errno != unix.ENOTDIR && denied == 0 {
				denied = errno
			}
			if i == len(f.calls)-1 {
				if denied == 0 {
					denied = errno
				}
				fail(f, uint32(i), denied)
			}
		}
	}
}

//go:nosplit
//go:norace
//go:nocheckptr
func perform(c *call) (r uintptr, errno unix.Errno) {
	if c.nr == compare {
		if **(**uintptr)(unsafe.Pointer(&c.args[0])) != c.args[1] {
			errno = unix.EBADFD
		}
		return 0, errno
	}
	r, _, errno = syscall.RawSyscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
	return r, errno
}

//go:nosplit
//go:norace
//go:nocheckptr
func fail(f *family, index uint32, errno unix.Errno) {
	f.report.Index, f.report.Errno = index, uint32(errno)
	syscall.RawSyscall(unix.SYS_WRITE, syncFD, uintptr(unsafe.Pointer(&f.report)), unsafe.Sizeof(f.report))
	exit(255)
}

//go:nosplit
//go:norace
func exit(code uintptr) {
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, code, 0, 0)
	}
}
