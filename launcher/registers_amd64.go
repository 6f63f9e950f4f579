package launcher

import "golang.org/x/sys/unix"

// syscallWord is the instruction syscall.
const syscallWord = "\x0f\x05"

// registers are those of a program: struct user_regs_struct, asm/user_64.h.
type registers struct{ unix.PtraceRegs }

// interrupted says where the call of a thread is that waited for the answer to n and was stopped. The kernel sets it up
// anew after the stop, by what the call returned and Orig_rax (arch/x86/kernel/signal.c, arch_do_signal_or_restart).
func (r *registers) interrupted(n *idNotice) (at uint64, ok bool) {
	return r.Rip - uint64(len(syscallWord)), int32(r.Orig_rax) == n.number && r.result() == restartCall
}

// setCall has the thread make a call, with the instruction at this address.
func (r *registers) setCall(at, nr uint64, args [6]uint64) {
	r.Rip, r.Rax = at, nr
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = args[0], args[1], args[2], args[3], args[4], args[5]
	r.outsideCall()
}

// setReturn has the call at this address return.
func (r *registers) setReturn(at uint64, value int64) {
	r.Rip, r.Rax = at+uint64(len(syscallWord)), uint64(value)
	r.outsideCall()
}

// outsideCall keeps the kernel from making a call again.
func (r *registers) outsideCall() { r.Orig_rax = ^uint64(0) }

func (r *registers) result() int64   { return int64(r.Rax) }
func (r *registers) counter() uint64 { return r.Rip }
func (r *registers) stack() uint64   { return r.Rsp }
