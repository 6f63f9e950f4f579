package birth

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// A stage is not executed from where its file lies: its program, and with it that of every sandbox's process 1, would be a
// handle on the user's own file in a place that can be written to (CVE-2019-5736). Between clone and exec the child has the
// rights to make a mount of that one file, read-only and attached nowhere, so that no privilege in a sandbox opens it for
// writing. syscall.ForkExec has no room for that.

// The runtime's own preparations for a fork; package launcher forks in the same way.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// vfork makes a system call that forks, after which parent and child return on one stack.
//
//go:noescape
func vfork(trap, a1, a2, a3 uintptr) (r1 uintptr, err syscall.Errno)

// newborn is all that a child needs to know between clone and exec, where it may neither allocate nor grow its stack.
type newborn struct {
	flags    uintptr
	parent   uintptr // pid; 0: no parent-death signal
	deathsig uintptr
	setsid   bool
	slack    uintptr // nanoseconds; 0: the parent's
	dir      *byte   // nil: the parent's
	files    []int   // what becomes of descriptors 0 and up; -1: closed. All are above that
	caps     []uintptr
	header   capHeader
	data     [2]capData

	path     *byte // of the program
	sealed   int   // a copy of the program that nobody can write to, in place of path; -1: none
	dev, ino uint64
	st       syscall.Stat_t
	attr     mountAttr
	empty    [1]byte
	argv     []*byte
	env      []*byte

	out     int // where to report a failure
	failure failure
}

// failure is what a child says that could not execute the program.
type failure struct {
	Step  uint32
	Errno uint32
}

const (
	stepOther    = iota
	stepReadOnly // the program cannot be mounted read-only
)

// UnmountableError is why the program cannot be mounted so that nobody can write to it.
type UnmountableError struct{ Errno syscall.Errno }

// Error implements error.
func (e *UnmountableError) Error() string {
	return "mount whisk's own program read-only: " + e.Errno.Error()
}

// Unwrap gives the kernel's answer.
func (e *UnmountableError) Unwrap() error { return e.Errno }

// everyCapability lists what the kernel knows: it refuses to make ambient what it does not.
func everyCapability() []uintptr {
	var caps []uintptr
	for c := uintptr(0); ; c++ {
		if _, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, capbsetRead, c, 0, 0, 0, 0); e != 0 {
			return caps
		}
		caps = append(caps, c)
	}
}

// program finds the file that this process is running, which after an upgrade is no longer the one at its path.
func (b *newborn) program() error {
	const link = "/proc/self/exe"
	path, err := os.Readlink(link)
	if err != nil {
		return err // an *os.PathError
	}
	if b.path, err = syscall.BytePtrFromString(path); err != nil {
		return err
	}
	var st syscall.Stat_t
	if err := syscall.Stat(link, &st); err != nil {
		return &os.PathError{Op: "stat", Path: link, Err: err}
	}
	b.dev, b.ino = uint64(st.Dev), st.Ino
	return nil
}

// pipe makes one whose ends no other child inherits.
func pipe() (r, w int, err error) {
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		return -1, -1, os.NewSyscallError("pipe2", err)
	}
	return p[0], p[1], nil
}

// fork clones the stage, unmapped, and returns when it has executed. What is written to release ends its Await.
func (s Stage) fork(born func(pid int)) (pid, release int, err error) {
	wait, release, err := pipe()
	if err != nil {
		return 0, -1, err
	}
	defer syscall.Close(wait)
	defer func() {
		if err != nil {
			syscall.Close(release)
		}
	}()
	b := &newborn{flags: syscall.CLONE_VM | syscall.CLONE_VFORK | syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | s.Cloneflags | uintptr(syscall.SIGCHLD), setsid: s.Setsid, slack: uintptr(s.TimerSlack), caps: everyCapability(), sealed: -1, out: -1}
	defer b.close()
	if err := b.program(); err != nil {
		return 0, -1, err
	}
	if err := b.give(s, wait); err != nil {
		return 0, -1, err
	}
	b.attr.set = attrReadOnly | attrNoSUID | attrNoDev
	if !wall.Up("read-only program") {
		b.attr.set = 0
	}
	if s.Dir != "" {
		if b.dir, err = syscall.BytePtrFromString(s.Dir); err != nil {
			return 0, -1, err
		}
	}
	if b.argv, err = syscall.SlicePtrFromStrings(append([]string{s.Name}, s.Args...)); err != nil {
		return 0, -1, err
	}
	if b.env, err = syscall.SlicePtrFromStrings(append(s.Env[:len(s.Env):len(s.Env)], syncVariable+"="+strconv.Itoa(len(b.files)-1))); err != nil {
		return 0, -1, err
	}
	if s.Pdeathsig != 0 {
		b.parent, b.deathsig = uintptr(os.Getpid()), uintptr(s.Pdeathsig)
	}
	b.header.version = capVersion3
	for _, c := range b.caps {
		d := &b.data[c/32]
		d.effective |= 1 << (c % 32)
		d.permitted, d.inheritable = d.effective, d.effective
	}
	said, out, err := pipe()
	if err != nil {
		return 0, -1, err
	}
	defer syscall.Close(said)
	b.out, err = above(out, len(b.files))
	syscall.Close(out)
	if err != nil {
		return 0, -1, err
	}
	syscall.ForkLock.Lock()
	child, errno := b.fork()
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(b)
	runtime.KeepAlive(s)
	if errno != 0 {
		return 0, -1, errno
	}
	syscall.Close(b.out)
	b.out = -1
	born(int(child))
	if r, failed := hear(said); failed {
		for {
			if _, err := syscall.Wait4(int(child), nil, 0, nil); err != syscall.EINTR {
				break
			}
		}
		if r.Step == stepReadOnly {
			return 0, -1, &UnmountableError{syscall.Errno(r.Errno)}
		}
		return 0, -1, syscall.Errno(r.Errno)
	}
	return int(child), release, nil
}

// hear reads what a child says that could not execute the program. One that could closes the pipe.
func hear(said int) (r failure, failed bool) {
	b := unsafe.Slice((*byte)(unsafe.Pointer(&r)), unsafe.Sizeof(r)) // written at once, and shorter than a pipe's page
	for {
		n, err := syscall.Read(said, b)
		if err != syscall.EINTR {
			return r, n == len(b)
		}
	}
}

// give duplicates the descriptors that the stage gets, out of the way of the numbers that they get there.
func (b *newborn) give(s Stage, wait int) error {
	null, err := syscall.Open(os.DevNull, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	defer syscall.Close(null)
	given := []int{null, null, null}
	for i, f := range append([]*os.File{s.Stdin, s.Stdout, s.Stderr}, s.Files...) {
		switch {
		case f != nil && i < 3:
			given[i] = int(f.Fd())
		case f != nil:
			given = append(given, int(f.Fd()))
		case i >= 3:
			given = append(given, -1)
		}
	}
	given = append(given, wait)
	for _, fd := range given {
		if fd >= 0 {
			if fd, err = above(fd, len(given)); err != nil {
				return err
			}
		}
		b.files = append(b.files, fd)
	}
	if s.Program != nil {
		b.sealed, err = above(int(s.Program.Fd()), len(given))
	}
	return err
}

// above duplicates a descriptor to one that is none of the stage's.
func above(fd, files int) (int, error) {
	n, _, e := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), dupCloexec, uintptr(files+2))
	if e != 0 {
		return -1, os.NewSyscallError("fcntl", e)
	}
	return int(n), nil
}

// close closes the duplicates.
func (b *newborn) close() {
	for _, fd := range append(b.files, b.sealed, b.out) {
		if fd >= 0 {
			syscall.Close(fd)
		}
	}
}

// fork never returns in the child.
//
//go:noinline
//go:norace
//go:nocheckptr
func (b *newborn) fork() (uintptr, syscall.Errno) {
	beforeFork()
	pid, errno := vfork(syscall.SYS_CLONE, b.flags, 0, 0)
	if errno != 0 || pid != 0 {
		afterFork()
		return pid, errno
	}
	afterForkInChild()
	b.become()
	return 0, 0
}

// become is the child's whole work.
//
//go:nosplit
//go:norace
//go:nocheckptr
func (b *newborn) become() {
	if b.setsid {
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETSID, 0, 0, 0); e != 0 {
			b.fail(stepOther, e)
		}
	}
	// Ambient capabilities, or an exec before the ids are mapped would lose them.
	if _, _, e := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&b.header)), uintptr(unsafe.Pointer(&b.data)), 0); e != 0 {
		b.fail(stepOther, e)
	}
	for _, c := range b.caps {
		if _, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, capAmbient, capAmbientRaise, c, 0, 0, 0); e != 0 {
			b.fail(stepOther, e)
		}
	}
	if b.slack != 0 {
		syscall.RawSyscall(syscall.SYS_PRCTL, setTimerslack, b.slack, 0) // a wish
	}
	if b.dir != nil {
		if _, _, e := syscall.RawSyscall(syscall.SYS_CHDIR, uintptr(unsafe.Pointer(b.dir)), 0, 0); e != 0 {
			b.fail(stepOther, e)
		}
	}
	if b.parent != 0 {
		if _, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, setPdeathsig, b.deathsig, 0, 0, 0, 0); e != 0 {
			b.fail(stepOther, e)
		}
		// It is lost if the parent has died before.
		if now, _, _ := syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0); now != b.parent {
			b.fail(stepOther, syscall.ESRCH)
		}
	}
	for i, fd := range b.files {
		if fd < 0 {
			syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(i), 0, 0)
			continue
		}
		if _, _, e := syscall.RawSyscall(syscall.SYS_DUP3, uintptr(fd), uintptr(i), 0); e != 0 {
			b.fail(stepOther, e)
		}
	}
	program := uintptr(b.sealed)
	if b.sealed < 0 {
		program = b.readOnly()
	}
	_, _, e := syscall.RawSyscall6(sysExecveat, program, uintptr(unsafe.Pointer(&b.empty)), uintptr(unsafe.Pointer(&b.argv[0])), uintptr(unsafe.Pointer(&b.env[0])), atEmptyPath, 0)
	b.fail(stepOther, e)
}

// readOnly mounts the program and returns its descriptor.
//
//go:nosplit
//go:norace
//go:nocheckptr
func (b *newborn) readOnly() uintptr {
	fd, _, e := syscall.RawSyscall(sysOpenTree, atFDCWD, uintptr(unsafe.Pointer(b.path)), openTreeClone|syscall.O_CLOEXEC)
	if e != 0 {
		b.fail(stepReadOnly, e)
	}
	if _, _, e = syscall.RawSyscall(syscall.SYS_FSTAT, fd, uintptr(unsafe.Pointer(&b.st)), 0); e != 0 {
		b.fail(stepReadOnly, e)
	}
	if uint64(b.st.Dev) != b.dev || b.st.Ino != b.ino {
		b.fail(stepReadOnly, syscall.ESTALE)
	}
	if b.attr.set != 0 {
		if _, _, e = syscall.RawSyscall6(sysMountSetattr, fd, uintptr(unsafe.Pointer(&b.empty)), atEmptyPath, uintptr(unsafe.Pointer(&b.attr)), unsafe.Sizeof(b.attr), 0); e != 0 {
			b.fail(stepReadOnly, e)
		}
	}
	return fd
}

//go:nosplit
//go:norace
//go:nocheckptr
func (b *newborn) fail(step uint32, e syscall.Errno) {
	b.failure.Step, b.failure.Errno = step, uint32(e)
	syscall.RawSyscall(syscall.SYS_WRITE, uintptr(b.out), uintptr(unsafe.Pointer(&b.failure)), unsafe.Sizeof(b.failure))
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 255, 0, 0)
	}
}
