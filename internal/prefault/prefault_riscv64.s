#include "textflag.h"

// func rawSyscall6(trap, a1, a2, a3, a4, a5, a6 uintptr) (r1, r2, errno uintptr)
TEXT ·rawSyscall6(SB),NOSPLIT,$0-80
	JMP	syscall·RawSyscall6(SB)

// func text() (start, end uintptr)
TEXT ·text(SB),NOSPLIT,$0-16
	MOV	$runtime·text(SB), X10
	MOV	X10, start+0(FP)
	MOV	$runtime·etypes(SB), X10
	MOV	X10, end+8(FP)
	RET

// func data() (start, end uintptr)
TEXT ·data(SB),NOSPLIT,$0-16
	MOV	$runtime·noptrdata(SB), X10
	MOV	X10, start+0(FP)
	MOV	$runtime·ebss(SB), X10
	MOV	X10, end+8(FP)
	RET

// func Stack()
TEXT ·Stack(SB),0,$16384-0
	RET
