package launcher

import "golang.org/x/sys/unix"

// syscallWord is the instruction ecall.
const syscallWord = "\x73\x00\x00\x00"

// registers are those of a program: struct user_regs_struct, asm/ptrace.h.
type registers struct{ unix.PtraceRegs }

// interrupted says where the call of a thread is that waited for the answer to n and was stopped. A kernel since 6.5 has set
// it up anew before the stop, so that a debugger sees it; one of before does so after it, by what the call returned
// (arch/riscv/kernel/signal.c, arch_do_signal_or_restart).
func (r *registers) interrupted(n *idNotice) (at uint64, ok bool) {
	ok = int32(r.A7) == n.number
	if r.result() == restartCall {
		return r.Pc - uint64(len(syscallWord)), ok
	}
	return r.Pc, ok && r.A0 == n.args[0]
}

// setCall has the thread make a call, with the instruction at this address.
func (r *registers) setCall(at, nr uint64, args [6]uint64) {
	r.Pc, r.A7 = at, nr
	r.A0, r.A1, r.A2, r.A3, r.A4, r.A5 = args[0], args[1], args[2], args[3], args[4], args[5]
}

// setReturn has the call at this address return.
func (r *registers) setReturn(at uint64, value int64) {
	r.Pc, r.A0 = at+uint64(len(syscallWord)), uint64(value)
}

// outsideCall keeps the kernel from making a call again, which it does by its result alone: no program starts with that of
// an interrupted call.
func (r *registers) outsideCall() {}

func (r *registers) result() int64   { return int64(r.A0) }
func (r *registers) counter() uint64 { return r.Pc }
func (r *registers) stack() uint64   { return r.Sp }
