#include "textflag.h"

// func vfork(trap, a1, a2, a3 uintptr) (r1 uintptr, err syscall.Errno)
//
// A jump, not a call: what parent and child both return through has to stay off the stack that they share.
TEXT ·vfork(SB),NOSPLIT|NOFRAME,$0-48
	JMP	syscall·rawVforkSyscall(SB)
