//go:build amd64 || arm64 || riscv64

package launcher

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/launcher/rights"
)

// canMove says that whisk can make calls in another process's name on this architecture.
const canMove = true

// moveTime bounds a move; it takes well under a millisecond, a move at execve(2) as long as that.
const moveTime = 10 * time.Second

// restartCall is what a call that was interrupted returns before it is made again: ERESTARTSYS, include/linux/errno.h.
const restartCall = -512

// stopped is a thread that is held by ptrace(2), by the calling thread.
type stopped struct {
	c     *idCalls
	tid   int
	tgid  int
	own   bool // our own child: its exit is its owner's to take
	regs  registers
	mask  [8]byte
	at    uint64 // address of a system call instruction
	until time.Time
	execs bool // it may change its thread id
}

var errGone = errors.New("the process has died")

// hold stops a thread that waits for the answer to n. The call will not be answered but made again, or made to return.
func (c *idCalls) hold(n *idNotice, a asker) (*stopped, error) {
	s := &stopped{c: c, tid: int(n.pid), tgid: a.tgid, own: a.parent == unix.Getpid(), until: time.Now().Add(moveTime)}
	if err := ptrace(unix.PTRACE_SEIZE, s.tid, unix.PTRACE_O_TRACESYSGOOD); err != nil {
		return nil, err
	}
	// While its call waits it is alive, and the id nobody else's.
	valid := c.valid(n)
	if err := ptrace(unix.PTRACE_INTERRUPT, s.tid, 0); err != nil {
		return nil, s.gone(err)
	}
	status, err := s.wait()
	if err != nil {
		return nil, s.gone(err)
	}
	if sig := status & 0x7f; status>>8 != unix.PTRACE_EVENT_STOP || !valid {
		if status>>8 != 0 {
			sig = 0 // an event's, and not one for the process
		}
		// A signal was quicker, and its handler goes first: the call is made again.
		return nil, errors.Join(errAgain, ptrace(unix.PTRACE_DETACH, s.tid, uintptr(sig)))
	}
	if err := s.regs.get(s.tid); err != nil {
		return nil, s.gone(err)
	}
	var insn [len(syscallWord)]byte
	at, ok := s.regs.interrupted(n)
	if ok {
		_, err := unix.PtracePeekText(s.tid, uintptr(at), insn[:])
		ok = err == nil && string(insn[:]) == syscallWord
	}
	if !ok {
		return nil, errors.Join(errors.New("it is not where it was"), unix.PtraceDetach(s.tid))
	}
	s.at = at
	if err := unix.PtraceSetOptions(s.tid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL); err != nil {
		return nil, s.abandon(err)
	}
	// No handler may run between the calls made in its name.
	if err := ptraceMask(unix.PTRACE_GETSIGMASK, s.tid, &s.mask); err != nil {
		return nil, s.abandon(err)
	}
	all := [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	if err := ptraceMask(unix.PTRACE_SETSIGMASK, s.tid, &all); err != nil {
		return nil, s.abandon(err)
	}
	return s, nil
}

// release lets a thread go on with these registers.
func (s *stopped) release(regs registers) error {
	if err := errors.Join(regs.set(s.tid), ptraceMask(unix.PTRACE_SETSIGMASK, s.tid, &s.mask)); err != nil {
		return s.abandon(err)
	}
	return unix.PtraceDetach(s.tid)
}

// abandon kills a process that was left in the middle: it must not go on with half a move.
func (s *stopped) abandon(err error) error {
	_ = unix.Kill(s.tgid, unix.SIGKILL)
	return s.gone(err)
}

// gone takes notice of a thread's end, before which its parent does not hear of it, ptrace(2).
func (s *stopped) gone(err error) error {
	if !s.own {
		for range 1000 {
			if pid, e := unix.Wait4(s.tid, nil, unix.WALL|unix.WNOHANG, nil); e == unix.ECHILD || pid != 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	return fmt.Errorf("process %d: %w", s.tgid, err)
}

// move puts a thread's process into a user namespace with who's number. The kernel's refusal is an Errno, and the
// thread still held; with any other error it is not.
func (s *stopped) move(a asker, who newUser, keep uint64) error {
	bits, err := s.call(unix.SYS_PRCTL, unix.PR_GET_SECUREBITS) // a new user namespace resets them
	if err != nil {
		return s.abandon(err)
	}
	permitted, effective := a.kept(max(bits, 0))
	if r, err := s.call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER, rights.MoveMark); err != nil {
		return s.abandon(err)
	} else if r < 0 {
		return unix.Errno(-r)
	}
	if err := mapOne(s.tid, "uid_map", who.uid); err != nil {
		return s.abandon(err)
	}
	if who.group || permitted == 0 { // else it may still ask for a group
		if err := mapOne(s.tid, "gid_map", who.gid); err != nil {
			return s.abandon(err)
		}
	} else {
		s.c.groupless[s.tgid] = who
	}
	for n := range uint64(64) {
		if keep&(1<<n) != 0 {
			continue
		}
		r, err := s.call(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n)
		if err != nil {
			return s.abandon(err)
		}
		if r == -int64(unix.EINVAL) {
			break // past the kernel's last
		}
		if r != 0 {
			return s.abandon(fmt.Errorf("drop capability %d from the bounding set: %w", n, unix.Errno(-r)))
		}
	}
	// Below the red zone, where nothing of the program's is (System V ABI, AMD64, 3.2.2; other architectures have none).
	at := (s.regs.stack() - 256) &^ 15
	var caps struct {
		unix.CapUserHeader
		data [2]unix.CapUserData
	}
	caps.Version = unix.LINUX_CAPABILITY_VERSION_3
	for i := range caps.data {
		caps.data[i].Permitted, caps.data[i].Effective = uint32(permitted>>(32*i)), uint32(effective>>(32*i))
	}
	if _, err := unix.PtracePokeData(s.tid, uintptr(at), unsafe.Slice((*byte)(unsafe.Pointer(&caps)), unsafe.Sizeof(caps))); err != nil {
		return s.abandon(err)
	}
	if r, err := s.call(unix.SYS_CAPSET, at, at+uint64(unsafe.Offsetof(caps.data))); err != nil {
		return s.abandon(err)
	} else if r != 0 {
		return s.abandon(fmt.Errorf("drop capabilities: %w", unix.Errno(-r)))
	}
	// What the kernel read was the app's memory, where another process of the app's may have written meanwhile.
	now, err := askerOf(uint32(s.tid))
	if err == nil {
		err = now.has(permitted, effective)
	}
	if err != nil {
		return s.abandon(err)
	}
	return nil
}

// call makes a system call in the thread's name and returns what it returned.
func (s *stopped) call(nr uint64, args ...uint64) (int64, error) {
	r := s.regs
	var six [6]uint64
	copy(six[:], args)
	r.setCall(s.at, nr, six)
	if err := r.set(s.tid); err != nil {
		return 0, err
	}
	if err := s.through(int32(nr), nr == unix.SYS_UNSHARE); err != nil {
		return 0, err
	}
	if err := r.get(s.tid); err != nil {
		return 0, err
	}
	return r.result(), nil
}

// through lets a thread enter and leave one system call; asks says that it will ask us for the answer.
func (s *stopped) through(nr int32, asks bool) error {
	entered := false
	for time.Now().Before(s.until) {
		if err := ptrace(unix.PTRACE_SYSCALL, s.tid, 0); err != nil {
			return err
		}
		if entered && asks {
			if err := s.c.letPass(s.tid, nr, s.hasStopped, s.until); err != nil {
				return err
			}
		}
		status, err := s.wait()
		if err != nil {
			return err
		}
		if status != int(unix.SIGTRAP)|0x80 {
			continue // a stop for job control, which no mask holds back: the move goes first
		}
		if !entered {
			entered = true
			continue
		}
		var r registers
		if err := r.get(s.tid); err != nil {
			return err
		}
		if r.result() != restartCall {
			return nil
		}
		entered = false // a stop came before our answer
	}
	return errors.New("it is stopped again and again")
}

// hasStopped tells whether the thread has, or has ended.
func (s *stopped) hasStopped() bool {
	var h held
	_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_PID, uintptr(s.tid), uintptr(unsafe.Pointer(&h)), unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT|unix.WNOHANG|unix.WALL, 0, 0)
	return errno != 0 || h.pid != 0
}

// held is siginfo_t of waitid(2).
type held struct {
	signo, errno, code int32
	_                  int32
	pid, uid           int32
	status             int32
	_                  [100]byte
}

// wait waits until the thread stops and leaves its state to be waited for: it may be our own child, whose end another
// goroutine waits for. A thread that executes a program takes over the id of its process.
func (s *stopped) wait() (status int, err error) {
	options := unix.WSTOPPED | unix.WEXITED | unix.WNOWAIT | unix.WALL
	if s.execs { // nobody who waits for the old id would be told
		options |= unix.WNOHANG
	}
	for nap := time.Duration(0); time.Now().Before(s.until); nap = min(nap+time.Microsecond, 200*time.Microsecond) {
		unknown := 0
		for _, id := range []int{s.tid, s.tgid} {
			var h held
			_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_PID, uintptr(id), uintptr(unsafe.Pointer(&h)), uintptr(options), 0, 0)
			const trapped = 4 // CLD_TRAPPED
			switch {
			case errno == unix.ECHILD:
				unknown++
			case errno != 0 || h.pid == 0:
			case h.code == trapped:
				s.tid = id
				return int(h.status), nil
			default:
				unknown++
			}
		}
		if unknown == 2 {
			return 0, errGone
		}
		time.Sleep(nap)
	}
	return 0, errors.New("it does not stop")
}

// moveHere moves a process in its call that gives up root. ok: it is, and the call has returned.
func (c *idCalls) moveHere(n *idNotice, a asker, who newUser) (ok bool, err error) {
	s, err := c.hold(n, a)
	if err != nil {
		return false, err
	}
	err = s.move(a, who, c.keep)
	if errno, refused := err.(unix.Errno); refused {
		err = errno
	} else if err != nil {
		return false, err
	}
	after := s.regs
	after.setReturn(s.at, 0)
	if e := s.release(after); e != nil {
		return false, e
	}
	return err == nil, err
}

// moveAtExec lets a process execute a program and moves it before the first instruction. ok: it has; otherwise the
// program could not be executed.
func (c *idCalls) moveAtExec(n *idNotice, a asker, who newUser) (ok bool, err error) {
	s, err := c.hold(n, a)
	if err != nil {
		return false, err
	}
	again := s.regs
	again.setCall(s.at, uint64(n.number), n.args)
	if err := again.set(s.tid); err != nil {
		return false, s.abandon(err)
	}
	s.execs = true
	if err := s.through(n.number, true); err != nil {
		return false, s.abandon(err)
	}
	s.execs = false
	if err := s.regs.get(s.tid); err != nil {
		return false, s.abandon(err)
	}
	if s.regs.result() < 0 {
		return false, s.release(s.regs)
	}
	// A call needs an instruction: the first of the new program lends its place.
	s.at = s.regs.counter()
	var was [8]byte
	if _, err := unix.PtracePeekText(s.tid, uintptr(s.at), was[:]); err != nil {
		return false, s.abandon(err)
	}
	insn := was
	copy(insn[:], syscallWord)
	if _, err := unix.PtracePokeText(s.tid, uintptr(s.at), insn[:]); err != nil {
		return false, s.abandon(err)
	}
	moved := s.move(asker{}, who, c.keep)
	if _, refused := moved.(unix.Errno); moved != nil && !refused {
		return false, moved
	}
	if _, err := unix.PtracePokeText(s.tid, uintptr(s.at), was[:]); err != nil {
		return false, s.abandon(err)
	}
	s.regs.outsideCall()
	if err := s.release(s.regs); err != nil {
		return false, err
	}
	return moved == nil, moved
}

// get reads the registers of a stopped thread: PTRACE_GETREGSET, which every architecture has, ptrace(2).
func (r *registers) get(tid int) error { return r.regset(unix.PTRACE_GETREGSET, tid) }

func (r *registers) set(tid int) error { return r.regset(unix.PTRACE_SETREGSET, tid) }

func (r *registers) regset(request, tid int) error {
	const general = 1 // NT_PRSTATUS, linux/elf.h
	v := unix.Iovec{Base: (*byte)(unsafe.Pointer(r)), Len: uint64(unsafe.Sizeof(*r))}
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), general, uintptr(unsafe.Pointer(&v)), 0, 0); errno != 0 {
		return fmt.Errorf("ptrace: registers: %w", errno)
	}
	if v.Len != uint64(unsafe.Sizeof(*r)) {
		return fmt.Errorf("ptrace: registers: %d bytes, not %d: a program of another architecture", v.Len, unsafe.Sizeof(*r))
	}
	return nil
}

func ptrace(request, tid int, data uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), 0, data, 0, 0); errno != 0 {
		return fmt.Errorf("ptrace: %w", errno)
	}
	return nil
}

// ptraceMask reads or sets the signals that a thread has blocked.
func ptraceMask(request, tid int, mask *[8]byte) error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), unsafe.Sizeof(*mask), uintptr(unsafe.Pointer(mask)), 0, 0); errno != 0 {
		return fmt.Errorf("ptrace: signal mask: %w", errno)
	}
	return nil
}
