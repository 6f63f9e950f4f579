package userns

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

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
	flags     uintptr
	parent    uintptr // pid; 0: no parent-death signal
	deathsig  uintptr
	setsid    bool
	dir       *byte // nil: the parent's
	files     []int // what becomes of descriptors 0 and up; -1: closed. All are above that
	caps      []uintptr
	capHeader unix.CapUserHeader
	capData   [2]unix.CapUserData

	path     *byte // of the program
	sealed   int   // a copy of the program that nobody can write to, in place of path; -1: none
	dev, ino uint64
	st       unix.Stat_t
	attr     unix.MountAttr
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

// program is whisk's own.
type program struct {
	path     string
	dev, ino uint64
}

// thisProgram finds the file that this process is running, which after an upgrade is no longer the one at its path.
func thisProgram() (p program, err error) {
	const link = "/proc/self/exe"
	if p.path, err = os.Readlink(link); err != nil {
		return p, fmt.Errorf("find whisk's own program: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(link, &st); err != nil {
		return p, fmt.Errorf("find whisk's own program: %w", err)
	}
	p.dev, p.ino = st.Dev, st.Ino
	return p, nil
}

// sealed copies the program into memory that cannot be changed any more, memfd_create(2). It takes some 10 ms and the
// program's size in memory: only where there is no mounting it.
func (p program) sealed() (*os.File, error) {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("copy whisk's own program: %w", err)
	}
	defer in.Close()
	fd, err := unix.MemfdCreate("whisk", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // MFD_EXEC: kernel 6.3
		fd, err = unix.MemfdCreate("whisk", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("copy whisk's own program: %w", err)
	}
	out := os.NewFile(uintptr(fd), "whisk")
	if _, err = io.Copy(out, in); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("copy whisk's own program: %w", err)
	}
	return out, nil
}

// fork clones the stage, unmapped, and returns when it has executed. born is called with each child, one after the other if
// the first could not execute the program.
func (s Stage) fork(wait *os.File, born func(pid int)) (int, error) {
	p, err := thisProgram()
	if err != nil {
		return 0, err
	}
	pid, step, err := s.forkFrom(p, nil, wait, born)
	if step != stepReadOnly {
		return pid, err
	}
	copied, err := p.sealed()
	if err != nil {
		return 0, err
	}
	defer copied.Close()
	pid, _, err = s.forkFrom(p, copied, wait, born)
	return pid, err
}

// forkFrom forks once. An error that is a plain Errno is the kernel's answer to the clone, or to a step after it.
func (s Stage) forkFrom(p program, copied, wait *os.File, born func(pid int)) (pid int, step uint32, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, 0, err
	}
	defer null.Close()
	given := []*os.File{s.Stdin, s.Stdout, s.Stderr}
	for i, f := range given {
		if f == nil {
			given[i] = null
		}
	}
	given = append(append(given, s.Files...), wait)
	b := &newborn{flags: syscall.CLONE_VM | syscall.CLONE_VFORK | syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | s.Cloneflags | uintptr(syscall.SIGCHLD), setsid: s.Setsid, caps: everyCapability(), sealed: -1, dev: p.dev, ino: p.ino}
	b.attr.Attr_set = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	if !wall.Up("read-only program") {
		b.attr.Attr_set = 0
	}
	high := len(given) + 3
	take := func(f *os.File) (int, error) {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, high)
		if err != nil {
			return -1, fmt.Errorf("duplicate descriptor: %w", err)
		}
		return fd, nil
	}
	defer func() {
		for _, fd := range b.files {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}()
	for _, f := range given {
		fd := -1
		if f != nil {
			if fd, err = take(f); err != nil {
				return 0, 0, err
			}
		}
		b.files = append(b.files, fd)
	}
	if copied != nil {
		if b.sealed, err = take(copied); err != nil {
			return 0, 0, err
		}
		defer unix.Close(b.sealed)
	}
	said, out, err := os.Pipe()
	if err != nil {
		return 0, 0, fmt.Errorf("make pipe: %w", err)
	}
	defer said.Close()
	defer out.Close()
	if b.out, err = take(out); err != nil {
		return 0, 0, err
	}
	closed := false
	defer func() {
		if !closed {
			unix.Close(b.out)
		}
	}()
	if b.path, err = syscall.BytePtrFromString(p.path); err != nil {
		return 0, 0, err
	}
	if s.Dir != "" {
		if b.dir, err = syscall.BytePtrFromString(s.Dir); err != nil {
			return 0, 0, err
		}
	}
	if b.argv, err = syscall.SlicePtrFromStrings(append([]string{s.Name}, s.Args...)); err != nil {
		return 0, 0, err
	}
	if b.env, err = syscall.SlicePtrFromStrings(append(s.Env[:len(s.Env):len(s.Env)], fmt.Sprintf("%s=%d", syncVariable, len(given)-1))); err != nil {
		return 0, 0, err
	}
	if s.Pdeathsig != 0 {
		b.parent, b.deathsig = uintptr(os.Getpid()), uintptr(s.Pdeathsig)
	}
	b.capHeader.Version = unix.LINUX_CAPABILITY_VERSION_3
	for _, c := range b.caps {
		d := &b.capData[c/32]
		d.Effective |= 1 << (c % 32)
		d.Permitted, d.Inheritable = d.Effective, d.Effective
	}
	syscall.ForkLock.Lock()
	child, errno := b.fork()
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(b)
	runtime.KeepAlive(given)
	if errno != 0 {
		return 0, 0, errno
	}
	unix.Close(b.out)
	closed = true
	out.Close()
	born(int(child))
	var r failure
	if _, err := io.ReadFull(said, unsafe.Slice((*byte)(unsafe.Pointer(&r)), unsafe.Sizeof(r))); err != nil {
		return int(child), 0, nil // it has executed, and the pipe closed
	}
	var ws syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(int(child), &ws, 0, nil); err != syscall.EINTR {
			break
		}
	}
	return 0, r.Step, syscall.Errno(r.Errno)
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
	if _, _, e := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&b.capHeader)), uintptr(unsafe.Pointer(&b.capData)), 0); e != 0 {
		b.fail(stepOther, e)
	}
	for _, c := range b.caps {
		if _, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0, 0); e != 0 {
			b.fail(stepOther, e)
		}
	}
	if b.dir != nil {
		if _, _, e := syscall.RawSyscall(syscall.SYS_CHDIR, uintptr(unsafe.Pointer(b.dir)), 0, 0); e != 0 {
			b.fail(stepOther, e)
		}
	}
	if b.parent != 0 {
		if _, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, unix.PR_SET_PDEATHSIG, b.deathsig, 0, 0, 0, 0); e != 0 {
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
	_, _, e := syscall.RawSyscall6(unix.SYS_EXECVEAT, program, uintptr(unsafe.Pointer(&b.empty)), uintptr(unsafe.Pointer(&b.argv[0])), uintptr(unsafe.Pointer(&b.env[0])), unix.AT_EMPTY_PATH, 0)
	b.fail(stepOther, e)
}

// readOnly mounts the program and returns its descriptor.
//
//go:nosplit
//go:norace
//go:nocheckptr
func (b *newborn) readOnly() uintptr {
	fd, _, e := syscall.RawSyscall(unix.SYS_OPEN_TREE, ^uintptr(99), uintptr(unsafe.Pointer(b.path)), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if e != 0 {
		b.fail(stepReadOnly, e)
	}
	if _, _, e = syscall.RawSyscall(syscall.SYS_FSTAT, fd, uintptr(unsafe.Pointer(&b.st)), 0); e != 0 {
		b.fail(stepReadOnly, e)
	}
	if b.st.Dev != b.dev || b.st.Ino != b.ino {
		b.fail(stepReadOnly, syscall.ESTALE)
	}
	if b.attr.Attr_set != 0 {
		if _, _, e = syscall.RawSyscall6(unix.SYS_MOUNT_SETATTR, fd, uintptr(unsafe.Pointer(&b.empty)), unix.AT_EMPTY_PATH, uintptr(unsafe.Pointer(&b.attr)), unsafe.Sizeof(b.attr), 0); e != 0 {
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
