package launcher

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// A process of a sandbox is forked from the keeper without exec: loading whisk's binary again would cost
// more than all else that a start does, and process 1 would keep a Go runtime of its own for ever. A forked
// child of a threaded program may do nothing but system calls, fork(2), so all it will do is written down
// beforehand as a script: an array of calls whose pointers stay valid in the copy of the memory.

// call is one system call of a script.
type call struct {
	nr   uintptr
	args [6]uintptr
	on   onError
	what string // for the error message; read by the parent only
}

// compare stands in the place of a system call's number: it fails unless there is the number args[1] at the address args[0].
// The first 64 bits of a statfs(2) are the file system's type, so that what the kernel has answered can be looked at.
const compare = ^uintptr(0)

// onError says what a script does when a call fails.
type onError uint8

const (
	mustWork  onError = iota // report and exit
	mayFail                  // go on
	tryNext                  // for execve: remember EACCES and the like, go on with the next candidate
	orGone                   // report and exit when the file is there but the call fails; ENOENT goes on
	orUnknown                // the same for what this kernel does not know; EINVAL goes on
	orClosed                 // the same for a service that the kernel lacks or that is closed to us; ENOSYS and EPERM go on
	oneByte                  // what must take or give one byte; otherwise exit in silence, the parent is gone
)

// script is what one child does. keep holds what its calls point to until release: the garbage collector frees nothing before,
// and moves nothing ever. (A runtime.Pinner for each costs as much as the rest of making a script.)
type script struct {
	calls []call
	keep  []any
	// apart is where all that calls point to is kept, if it is not to be the keeper's heap; see away.
	apart *apart
}

// add appends a call. Strings and slices among args are passed by address, integers by value.
func (s *script) add(what string, on onError, nr uintptr, args ...any) {
	if on == mustWork && !wall.Up(failsClosed) {
		on = mayFail
	}
	c := call{nr: nr, on: on, what: what}
	for i, a := range args {
		c.args[i] = s.word(a)
	}
	s.calls = append(s.calls, c)
}

func (s *script) word(a any) uintptr {
	switch v := a.(type) {
	case nil:
		return 0
	case int:
		return uintptr(v)
	case uintptr:
		return v
	case string:
		b := append([]byte(v), 0)
		if s.apart != nil {
			return s.apart.bytes(b)
		}
		return pointer(s, &b[0])
	case []string:
		if s.apart != nil {
			return s.apart.strings(v)
		}
		ptrs := make([]uintptr, len(v)+1)
		for i, e := range v {
			b := append([]byte(e), 0)
			ptrs[i] = pointer(s, &b[0])
		}
		return pointer(s, &ptrs[0])
	case []uint32:
		if len(v) == 0 {
			return 0
		}
		if s.apart != nil {
			return s.apart.bytes(unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), 4*len(v)))
		}
		return pointer(s, &v[0])
	case *unix.SockFprog:
		if s.apart != nil {
			return s.apart.filter(v)
		}
		s.keep = append(s.keep, v.Filter)
		return pointer(s, v)
	case *unix.Rlimit:
		return pointer(s, v)
	case *unix.CapUserHeader:
		return pointer(s, v)
	case *[2]unix.CapUserData:
		return pointer(s, v)
	case *[1]byte:
		return pointer(s, v)
	case *[2]unix.PollFd:
		return pointer(s, v)
	case *unix.Statfs_t:
		return pointer(s, v)
	case *unix.Stat_t:
		return pointer(s, v)
	case *unix.OpenHow:
		return pointer(s, v)
	}
	panic("launcher: a script cannot pass this type")
}

// pointer is the address of what p points to, which holds no pointers itself, or of a copy where the script is kept apart.
func pointer[T any](s *script, p *T) uintptr {
	if s.apart != nil {
		return placed(s.apart, *p)
	}
	s.keep = append(s.keep, p)
	return uintptr(unsafe.Pointer(p))
}

// release lets the garbage collector have the script's memory again; the child has a copy of its own.
func (s *script) release() {
	runtime.KeepAlive(s.keep)
	s.keep = nil
	s.apart.free()
}

// syncFD is the descriptor, in a child, of the socket on which it meets the keeper and reports a failure. It closes on
// exec, so that the parent reads end of file when the app has started.
const syncFD = 3

// report is what a child writes to syncFD before it exits: which call of which script failed, and how.
type report struct {
	Index uint32 // in family.calls
	Errno uint32
}

// family is the memory that fork shares with its child.
type family struct {
	calls []call
	// init says that the child becomes a sandbox's init, instead of a program that the last of its calls execute.
	init   bool
	flags  uintptr
	app    int32   // for init: the app's process id
	all    [8]byte // a signal set of everything
	status int32
	code   int32
	told   told
	report report
	// between is for a child that a process in between forks; see forkOrphan.
	between *between
	// away is for one that leaves the keeper's memory behind.
	away *away
}

// told is what init writes to toldFD of each child of its own that has ended, but the app.
type told struct {
	PID    int32
	Status int32 // as of wait(2)
}

// toldFD is the descriptor, in init, of the pipe for them.
const toldFD = syncFD + 1

// appPID is the app's process id below an init: it is the second process of its pid namespace. Where clone3(2) is closed
// to us, the process in between takes that number.
func appPID() int32 {
	if _, _, errno := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0); errno == unix.EINVAL {
		return 2
	}
	return 3
}

// fork makes a child that carries out the calls. As init it then reaps, and passes signals on to the app, until the app
// ends, whose status is its own. The calling goroutine must be locked to its thread. It returns the child's pid in the
// caller's pid namespace.
func (f *family) fork() (int, unix.Errno) {
	for i := range f.all {
		f.all[i] = 0xff
	}
	pid, errno := forkRaw(f)
	runtime.KeepAlive(f)
	if errno != 0 {
		return 0, errno
	}
	return int(pid), 0
}

// between is the memory of a process between the caller and the child. It only forks the child and says which it is.
type between struct {
	args  cloneArgs
	tid   [1]int32
	child int32 // the child's pid in its own pid namespace, or an errno below zero
	out   int   // the socket to say it on
	iov   unix.Iovec
	msg   unix.Msghdr
	// control carries a pidfd, as SCM_RIGHTS does, unix(7); clone(2) puts it there.
	control struct {
		head unix.Cmsghdr
		fd   int32
		_    int32
	}
}

// cloneArgs is struct clone_args, clone3(2), as of Linux 5.5.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize uint64
}

// forkOrphan forks a child whose parent is process 1 of the pid namespace that the calling thread's children are born
// in: a process in between forks it and ends. So it is reaped there, whoever reaps outside: a namespace whose init has
// been killed waits for each of its processes to be reaped, pid_namespaces(7). tid is the pid in the namespace that the
// process in between takes; 0: any. It returns the child's pid in its own pid namespace and a pidfd.
func (f *family) forkOrphan(tid int32) (pid, pidfd int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, -1, fmt.Errorf("make socket: %w", err)
	}
	defer closeFD(&pair[0])
	defer closeFD(&pair[1])
	b := &between{tid: [1]int32{tid}}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(b)
	b.prepare(pair[1])
	b.args.exitSignal = uint64(unix.SIGCHLD)
	if tid != 0 {
		b.args.setTID, b.args.setTIDSize = uint64(uintptr(unsafe.Pointer(&b.tid))), 1
	}
	f.between = b
	mid, errno := f.fork()
	if errno != 0 {
		return 0, -1, fmt.Errorf("fork: %w", errno)
	}
	closeFD(&pair[1])
	defer func() { _ = waitFor(mid) }()
	return readOrphan(pair[0], mid)
}

// prepare readies the message; the child may store no pointer.
func (b *between) prepare(out int) {
	b.out = out
	b.iov.Base = (*byte)(unsafe.Pointer(&b.child))
	b.iov.SetLen(int(unsafe.Sizeof(b.child)))
	b.msg.Iov, b.msg.Iovlen = &b.iov, 1
	b.control.head.Level, b.control.head.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	b.msg.Control = (*byte)(unsafe.Pointer(&b.control))
	b.control.head.SetLen(unix.CmsgLen(4))
}

// readOrphan reads what mid, the process in between, says.
func readOrphan(fd, mid int) (pid, pidfd int, err error) {
	between, err := unix.PidfdOpen(mid, 0)
	if err != nil {
		return 0, -1, fmt.Errorf("open child: %w", err)
	}
	defer unix.Close(between)
	if err := beImpatient(fd); err != nil {
		return 0, -1, err
	}
	var child [4]byte
	control := make([]byte, unix.CmsgSpace(4))
	for {
		n, cn, _, _, err := unix.Recvmsg(fd, child[:], control, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			if err := freed(between); err != nil {
				return 0, -1, err
			}
			continue
		}
		if err != nil {
			return 0, -1, fmt.Errorf("wait for child: %w", err)
		}
		if n != len(child) {
			return 0, -1, errDiedEarly
		}
		pid = int(int32(binary.NativeEndian.Uint32(child[:])))
		if pid < 0 {
			return 0, -1, fmt.Errorf("fork: %w", unix.Errno(-pid))
		}
		messages, err := unix.ParseSocketControlMessage(control[:cn])
		if err != nil || len(messages) != 1 {
			return 0, -1, fmt.Errorf("wait for child: it came without its pidfd: %w", err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			return 0, -1, fmt.Errorf("wait for child: it came without its pidfd: %w", err)
		}
		return pid, fds[0], nil
	}
}

// errDiedEarly is of a child that was killed before it could say why.
var errDiedEarly = errors.New("the child of the keeper died while it started")
