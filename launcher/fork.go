package launcher

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
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

// onError says what a script does when a call fails.
type onError uint8

const (
	mustWork  onError = iota // report and exit
	mayFail                  // go on
	tryNext                  // for execve: remember EACCES and the like, go on with the next candidate
	orGone                   // report and exit when the file is there but the call fails; ENOENT goes on
	orUnknown                // the same for what this kernel does not know; EINVAL goes on
	orClosed                 // the same for a service that the kernel lacks or that is closed to us; ENOSYS and EPERM go on
	oneByte                  // a read that must return one byte; otherwise exit in silence, the parent is gone
)

// script is what one child does. keep holds what its calls point to.
type script struct {
	calls  []call
	keep   []any
	pinner runtime.Pinner
}

// add appends a call. Strings and slices among args are passed by address, integers by value.
func (s *script) add(what string, on onError, nr uintptr, args ...any) {
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
		return s.pin(&b[0])
	case []string:
		ptrs := make([]uintptr, len(v)+1)
		for i, e := range v {
			b := append([]byte(e), 0)
			ptrs[i] = s.pin(&b[0])
		}
		return s.pin(&ptrs[0])
	case *unix.Rlimit:
		return s.pin(v)
	case *unix.SockFprog:
		s.pin(v.Filter)
		return s.pin(v)
	case *unix.CapUserHeader:
		return s.pin(v)
	case *[2]unix.CapUserData:
		return s.pin(v)
	case *[1]byte:
		return s.pin(v)
	case []uint32:
		if len(v) == 0 {
			return 0
		}
		return s.pin(&v[0])
	}
	panic("launcher: a script cannot pass this type")
}

func (s *script) pin(p any) uintptr {
	s.pinner.Pin(p)
	s.keep = append(s.keep, p)
	switch v := p.(type) {
	case *byte:
		return uintptr(unsafe.Pointer(v))
	case *uintptr:
		return uintptr(unsafe.Pointer(v))
	case *uint32:
		return uintptr(unsafe.Pointer(v))
	case *unix.Rlimit:
		return uintptr(unsafe.Pointer(v))
	case *unix.SockFprog:
		return uintptr(unsafe.Pointer(v))
	case *unix.SockFilter:
		return uintptr(unsafe.Pointer(v))
	case *unix.CapUserHeader:
		return uintptr(unsafe.Pointer(v))
	case *[2]unix.CapUserData:
		return uintptr(unsafe.Pointer(v))
	case *[1]byte:
		return uintptr(unsafe.Pointer(v))
	}
	panic("launcher: a script cannot pin this type")
}

// release lets the garbage collector have the script's memory again; the child has a copy of its own.
func (s *script) release() { s.pinner.Unpin() }

// syncFD is the descriptor, in a child, of the pipe that reports a failure. It closes on exec, so that the
// parent reads end of file when the app has started.
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
	all    [8]byte // a signal set of everything
	status int32
	report report
}

// appPID is the app's process id below an init: it is the second process of its pid namespace.
const appPID = 2

// fork makes a child that carries out the calls. As init it then reaps, and passes signals on to the app, until it is
// killed. The calling goroutine must be locked to its thread. It returns the child's pid in the caller's pid namespace.
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
