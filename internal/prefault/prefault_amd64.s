#include "textflag.h"

// func rawSyscall6(trap, a1, a2, a3, a4, a5, a6 uintptr) (r1, r2, errno uintptr)
TEXT ·rawSyscall6(SB),NOSPLIT,$0-80
	JMP	syscall·RawSyscall6(SB)

// func text() (start, end uintptr)
TEXT ·text(SB),NOSPLIT,$0-16
	MOVQ	$runtime·text(SB), AX
	MOVQ	AX, start+0(FP)
	MOVQ	$runtime·etypes(SB), AX
	MOVQ	AX, end+8(FP)
	RET

// func data() (start, end uintptr)
TEXT ·data(SB),NOSPLIT,$0-16
	MOVQ	$runtime·noptrdata(SB), AX
	MOVQ	AX, start+0(FP)
	MOVQ	$runtime·ebss(SB), AX
	MOVQ	AX, end+8(FP)
	RET

// func Stack()
TEXT ·Stack(SB),0,$16384-0
	RET
