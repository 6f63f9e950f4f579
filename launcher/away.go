package launcher

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// An app with CAP_SYS_PTRACE may look into every process that it sees, and a further command is a copy of the keeper from its
// birth until it executes its program: with the keeper's memory, in which are the secrets of all sandboxes of a network, and
// with its descriptors. So there a process in between, which is outside of the sandbox's pid namespace and therefore seen by
// nobody in it, first leaves behind all that the command does not need, and forks it then.
//
//	the sandbox's thread     the process in between                      the command
//	clone ─────────────────▶ close_range: all descriptors but a few
//	                         munmap: all memory but whisk's code,
//	                         the script and a page of stack
//	                         setns: the sandbox's pid namespace
//	                         clone, once more for an orphan ───────────▶ the script, as ever
//	         its pidfd ◀──── sendmsg, exit

// away is the memory of the process in between; it lies apart from the keeper's.
type away struct {
	gaps    [maxKept + 1]span // memory to leave behind
	nGaps   int
	fds     [maxKept + 1]span // descriptors to close
	nFDs    int
	wipe    [2]span // what of the stack's pages is not its own
	pidns   int
	orphan  bool
	flags   uintptr // for clone(2)
	between between
	kept    [maxKept]span // memory to keep, sorted, but for the stack
	nKept   int
}

// maxKept bounds the parts that are kept: whisk's code, the script, the stack, the kernel's own pages, some descriptors.
const maxKept = 24

type span struct{ from, to uintptr } // without to

// apart is memory that only a script is in.
type apart struct {
	mem  []byte
	used int
	err  error
}

// apartSize is address space, of which only what is used takes memory: arguments and environment of execve(2) are at most
// 6 MB, and their copies' pointers as much again for the shortest.
const apartSize = 32 << 20

func newApart() (*apart, error) {
	mem, err := unix.Mmap(-1, 0, apartSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("make room for a command: %w", err)
	}
	return &apart{mem: mem}, nil
}

func (a *apart) free() {
	if a != nil && a.mem != nil {
		_ = unix.Munmap(a.mem)
		a.mem = nil
	}
}

// alloc returns zeroed memory for n bytes. Where there is no more, err is set and what is returned is of no use.
func (a *apart) alloc(n int) unsafe.Pointer {
	n = (n + 15) &^ 15
	if n > len(a.mem)-a.used {
		a.err = unix.E2BIG
		a.used = 0
	}
	if n > len(a.mem) {
		n = 0
	}
	p := unsafe.Pointer(&a.mem[a.used])
	a.used = min(a.used+n, len(a.mem)-16)
	return p
}

func (a *apart) bytes(b []byte) uintptr {
	p := a.alloc(len(b))
	if a.err == nil {
		copy(unsafe.Slice((*byte)(p), len(b)), b)
	}
	return uintptr(p)
}

func (a *apart) strings(all []string) uintptr {
	p := a.alloc((len(all) + 1) * int(unsafe.Sizeof(uintptr(0))))
	for i, s := range all {
		b := a.bytes(append([]byte(s), 0))
		if a.err != nil {
			return 0
		}
		*(*uintptr)(unsafe.Add(p, uintptr(i)*unsafe.Sizeof(b))) = b
	}
	return uintptr(p)
}

// filter places a copy of a filter for seccomp(2), with its instructions.
func (a *apart) filter(p *unix.SockFprog) uintptr {
	instructions := a.bytes(unsafe.Slice((*byte)(unsafe.Pointer(p.Filter)), int(p.Len)*int(unsafe.Sizeof(*p.Filter))))
	at := placed(a, unix.SockFprog{Len: p.Len})
	if a.err == nil {
		*(*uintptr)(unsafe.Add(unsafe.Pointer(&a.mem[0]), at-uintptr(unsafe.Pointer(&a.mem[0]))+unsafe.Offsetof(p.Filter))) = instructions
	}
	return at
}

func placed[T any](a *apart, v T) uintptr {
	p := a.alloc(int(unsafe.Sizeof(v)))
	if a.err == nil {
		*(*T)(p) = v
	}
	return uintptr(p)
}

// goesAway tells whether the commands of a sandbox are born so.
func (s *Sandbox) goesAway() bool {
	return s.rights.Caps&(1<<unix.CAP_SYS_PTRACE) != 0 && wall.Up("the keeper's memory left behind")
}

// openPIDNamespace opens that of process 1. The sandbox's thread has the sandbox's root, and its /proc, by now.
func (s *Sandbox) openPIDNamespace() (err error) {
	elsewhere(func() { s.pidns, err = os.Open(fmt.Sprintf("/proc/%d/ns/pid", s.pid)) })
	return err
}

// elsewhere runs f on another thread, which has the host's /proc.
func elsewhere(f func()) {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	<-done
}

// forkAway forks a child in another pid namespace, by a process in between that leaves behind all memory that the script is
// not in and all descriptors but these. orphan gives it to process 1 there; otherwise it is this thread's.
func (s *script) forkAway(pidns *os.File, orphan bool, fds []int) (pid int, h *handle, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("make socket: %w", err)
	}
	defer closeFD(&pair[0])
	defer closeFD(&pair[1])
	calls := unsafe.Slice((*call)(s.apart.alloc(len(s.calls)*int(unsafe.Sizeof(call{})))), len(s.calls))
	f := (*family)(s.apart.alloc(int(unsafe.Sizeof(family{}))))
	a := (*away)(s.apart.alloc(int(unsafe.Sizeof(away{}))))
	if s.apart.err != nil {
		return 0, nil, s.apart.err
	}
	copy(calls, s.calls)
	for i := range calls {
		calls[i].what = "" // the parent has it
	}
	f.calls, f.away = calls, a
	a.pidns, a.flags = int(pidns.Fd()), uintptr(unix.CLONE_PIDFD)|uintptr(unix.SIGCHLD)
	if a.orphan = orphan; !orphan {
		a.flags |= unix.CLONE_PARENT
	}
	a.between.prepare(pair[1])
	fds = append(fds, a.pidns, pair[1])
	slices.Sort(fds)
	a.nFDs = 0
	next := uintptr(0)
	for _, fd := range fds {
		if uintptr(fd) > next {
			a.fds[a.nFDs] = span{next, uintptr(fd)}
			a.nFDs++
		}
		next = uintptr(fd) + 1
	}
	a.fds[a.nFDs] = span{next, 1 << 31}
	a.nFDs++
	if err := a.keep(s.apart); err != nil {
		return 0, nil, err
	}
	mid, errno := f.fork()
	if errno != 0 {
		return 0, nil, fmt.Errorf("fork: %w", errno)
	}
	closeFD(&pair[1])
	defer func() { _ = waitFor(mid) }()
	pid, fd, err := readOrphan(pair[0], mid)
	if err != nil {
		return 0, nil, err
	}
	return pid, &handle{fd: fd}, nil
}

// fixed are the parts of this process's memory that a child executes, and those that the kernel gives to every process and
// may refuse to unmap.
var fixed = sync.OnceValues(func() ([]span, error) {
	var maps []byte
	var err error
	elsewhere(func() { maps, err = os.ReadFile("/proc/self/maps") })
	if err != nil {
		return nil, fmt.Errorf("look at own memory: %w", err)
	}
	return fixedIn(string(maps), codePointer())
})

// fixedIn picks them from proc_pid_maps(5); code is an address in the program. Of the program it is what cannot be written to.
func fixedIn(maps string, code uintptr) ([]span, error) {
	type region struct {
		span
		mode, inode, name string
	}
	var all []region
	inode := ""
	for line := range strings.Lines(maps) {
		f := strings.Fields(line)
		if len(f) < 5 {
			return nil, fmt.Errorf("memory map line %q is too short", line)
		}
		from, to, _ := strings.Cut(f[0], "-")
		a, err1 := strconv.ParseUint(from, 16, 64)
		b, err2 := strconv.ParseUint(to, 16, 64)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("memory map line %q is none", line)
		}
		r := region{span{uintptr(a), uintptr(b)}, f[1], f[3] + " " + f[4], strings.Join(f[5:], " ")}
		if r.from <= code && code < r.to {
			inode = r.inode
		}
		all = append(all, r)
	}
	var out []span
	for _, r := range all {
		switch {
		case r.name == "[vsyscall]": // above all that can be unmapped
		case r.inode == inode && !strings.Contains(r.mode, "w"), strings.HasPrefix(r.name, "[v"), strings.HasPrefix(r.name, "[sigpage"):
			out = append(out, r.span)
		}
	}
	if inode == "" || len(out) > maxKept-2 {
		return nil, fmt.Errorf("%d parts of memory to keep are not what was expected", len(out))
	}
	return out, nil
}

func codePointer() uintptr {
	pc, _, _, _ := runtime.Caller(0)
	return pc
}

// keep notes what memory stays, but for the stack.
func (a *away) keep(p *apart) error {
	parts, err := fixed()
	if err != nil {
		return err
	}
	start := uintptr(unsafe.Pointer(&p.mem[0]))
	parts = append(slices.Clone(parts), span{start, start + uintptr(len(p.mem))})
	a.nKept = copy(a.kept[:], parts)
	return nil
}

// topOfMemory is where a process's addresses end: the last page is the kernel's, with 48 bits on arm64, 47 elsewhere and 38 on
// riscv64 with the smallest page tables, where the kernel lets no process have more by itself.
var topOfMemory = map[string]uintptr{"amd64": 1<<47 - 4096, "arm64": 1 << 48, "riscv64": 1 << 38}[runtime.GOARCH]

var pageSize = uintptr(os.Getpagesize())

// settle is called on the stack that the child will run on, in the frame that forks: the last thing before it.
//
//go:noinline
func (a *away) settle() {
	for {
		sp := stackPointer()
		a.plan(sp)
		if stackPointer() == sp { // planning has not moved the stack
			return
		}
	}
}

// Below and above the stack pointer a child touches no more than this: its functions may not grow the stack, which leaves
// them 800 bytes, and never return to their caller.
const (
	stackBelow = 3 << 10
	stackAbove = 2 << 10
)

func (a *away) plan(sp uintptr) {
	stack := span{(sp - stackBelow) &^ (pageSize - 1), (sp + stackAbove + pageSize - 1) &^ (pageSize - 1)}
	a.wipe = [2]span{{stack.from, sp - stackBelow}, {sp + stackAbove, stack.to}}
	kept := append(slices.Clone(a.kept[:a.nKept]), stack)
	slices.SortFunc(kept, func(x, y span) int { return cmp.Compare(x.from, y.from) })
	a.nGaps = 0
	next := uintptr(0)
	for _, k := range kept {
		if k.from > next {
			a.gaps[a.nGaps] = span{next, k.from}
			a.nGaps++
		}
		next = max(next, k.to)
	}
	a.gaps[a.nGaps] = span{next, topOfMemory &^ (pageSize - 1)}
	if a.gaps[a.nGaps].to > next {
		a.nGaps++
	}
}

//go:noinline
//go:nosplit
func stackPointer() uintptr {
	var here byte
	return uintptr(unsafe.Pointer(&here))
}

// goAway is the whole work of the process in between: its child returns, and it ends. It fails closed: what it cannot leave
// behind ends it, and the keeper finds no child.
//
//go:nosplit
//go:norace
//go:nocheckptr
func goAway(a *away) {
	for i := 0; i < a.nFDs; i++ {
		if _, _, e := syscall.RawSyscall(unix.SYS_CLOSE_RANGE, a.fds[i].from, a.fds[i].to-1, 0); e != 0 {
			exit(255)
		}
	}
	for i := 0; i < 2; i++ {
		for at := a.wipe[i].from; at < a.wipe[i].to; at++ {
			*(*byte)(unsafe.Add(nil, at)) = 0
		}
	}
	for i := 0; i < a.nGaps; i++ {
		if _, _, e := syscall.RawSyscall(unix.SYS_MUNMAP, a.gaps[i].from, a.gaps[i].to-a.gaps[i].from, 0); e != 0 {
			exit(255)
		}
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_SETNS, uintptr(a.pidns), unix.CLONE_NEWPID, 0); e != 0 {
		exit(255)
	}
	b := &a.between
	if a.orphan {
		// A child goes to process 1 of its parent's namespace, not of its own: one more process, which is in it.
		pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			b.tell(0, errno)
		}
		if pid != 0 {
			syscall.RawSyscall6(unix.SYS_WAIT4, pid, 0, 0, 0, 0, 0)
			exit(0)
		}
	}
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, a.flags, 0, uintptr(unsafe.Pointer(&b.control.fd)), 0, 0, 0)
	if errno == 0 && pid == 0 {
		syscall.RawSyscall(unix.SYS_CLOSE, uintptr(a.pidns), 0, 0)
		syscall.RawSyscall(unix.SYS_CLOSE, uintptr(b.out), 0, 0)
		return
	}
	b.tell(pid, errno)
}
