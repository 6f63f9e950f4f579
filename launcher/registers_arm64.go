package launcher

import "golang.org/x/sys/unix"

// syscallWord is the instruction svc #0.
const syscallWord = "\x01\x00\x00\xd4"

// registers are those of a program: struct user_pt_regs, asm/ptrace.h. What is read of x7 at the entry and exit of a call
// says which of them it is, and what is written to it there is lost (arch/arm64/kernel/ptrace.c, report_syscall); so it is
// never used.
type registers struct{ unix.PtraceRegs }

// interrupted says where the call of a thread is that waited for the answer to n and was stopped. The kernel has set it up
// anew before the stop, so that a debugger sees it, and then forgets it (arch/arm64/kernel/signal.c, do_signal).
func (r *registers) interrupted(n *idNotice) (at uint64, ok bool) {
	return r.Pc, int32(r.Regs[8]) == n.number && r.Regs[0] == n.args[0]
}

// setCall has the thread make a call, with the instruction at this address.
func (r *registers) setCall(at, nr uint64, args [6]uint64) {
	r.Pc, r.Regs[8] = at, nr
	copy(r.Regs[:6], args[:])
}

// setReturn has the call at this address return.
func (r *registers) setReturn(at uint64, value int64) {
	r.Pc, r.Regs[0] = at+uint64(len(syscallWord)), uint64(value)
}

// outsideCall keeps the kernel from making a call again: only one that returns so and has not been seen by a signal's
// check is.
func (r *registers) outsideCall() {}

func (r *registers) result() int64   { return int64(r.Regs[0]) }
func (r *registers) counter() uint64 { return r.Pc }
func (r *registers) stack() uint64   { return r.Sp }
