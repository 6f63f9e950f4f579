package rights

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// policy says what to answer to each system call. An answer is a SECCOMP_RET_* value with its data.
type policy struct {
	calls     map[uint32]verdict
	otherwise uint32 // for calls that are not listed
	last      uint32 // the highest number that the policy knows of
	beyond    uint32 // for calls above it
	foreign   uint32 // for calls of another architecture or of x32
}

// verdict is the answer to one call: of the first rule that fits, else otherwise.
type verdict struct {
	rules     []rule
	otherwise uint32
}

// rule fits when all its conditions hold.
type rule struct {
	conds  []cond
	action uint32
}

// cond compares argument & mask with value, both as 64 bits without sign.
type cond struct {
	arg         uint32 // 0 to 5
	op          specs.LinuxSeccompOperator
	mask, value uint64
}

// Offsets in struct seccomp_data, linux/seccomp.h; both architectures are little-endian.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// x32Bit marks calls of the x32 ABI, asm/unistd.h.
const x32Bit = 0x40000000

type insn = unix.SockFilter

// compile makes the filter.
func (p policy) compile(abi abi) []insn {
	spans := p.spans(abi)
	body := search(spans)
	out := []insn{
		load(offArch),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: abi.audit},
		ret(p.foreign),
		load(offNumber),
	}
	return append(out, body...)
}

// span is a run of call numbers with the same code, from its first number to the next span's.
type span struct {
	from uint32
	code []insn
}

// spans cover all numbers from 0 on. Neighbours with the same plain answer are one.
func (p policy) spans(abi abi) []span {
	var out []span
	add := func(from uint32, code []insn) {
		if n := len(out); n > 0 && len(code) == 1 && len(out[n-1].code) == 1 && code[0] == out[n-1].code[0] {
			return
		}
		out = append(out, span{from, code})
	}
	next := uint32(0)
	for _, nr := range p.sortedCalls() {
		if nr > next {
			add(next, []insn{ret(p.otherwise)})
		}
		add(nr, p.calls[nr].compile())
		next = nr + 1
	}
	if next <= p.last {
		add(next, []insn{ret(p.otherwise)})
		next = p.last + 1
	}
	add(next, []insn{ret(p.beyond)})
	if abi.x32 {
		add(x32Bit, []insn{ret(p.foreign)})
		// -1 is what a tracer sets to skip a call, and not x32's.
		add(^uint32(0), []insn{ret(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))})
	}
	return out
}

// search is a binary search over spans for the number in the accumulator.
func search(spans []span) []insn {
	if len(spans) == 1 {
		return spans[0].code
	}
	mid := len(spans) / 2
	low, high := search(spans[:mid]), search(spans[mid:])
	return append(append(jumpIf(insn{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: spans[mid].from}, len(low)), low...), high...)
}

// jumpIf goes on behind the next n instructions when test holds. Conditional jumps reach 255 instructions far.
func jumpIf(test insn, n int) []insn {
	if n <= 255 {
		test.Jt = uint8(n)
		return []insn{test}
	}
	test.Jf = 1
	return []insn{test, {Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(n)}}
}

func (v verdict) compile() []insn {
	var out []insn
	for _, r := range v.rules {
		out = append(out, r.compile()...)
	}
	return append(out, ret(v.otherwise))
}

// compile answers when all conditions hold and runs off its end when one does not. Each condition is compiled from the
// last to the first, knowing how far the end is.
func (r rule) compile() []insn {
	code := []insn{ret(r.action)}
	for i := len(r.conds) - 1; i >= 0; i-- {
		code = append(r.conds[i].compile(len(code)), code...)
	}
	return code
}

// compile runs off its end when the condition holds, and goes on behind the next n instructions when not. The classic
// machine has 32 bits: the high halves are compared first, and decide unless they are equal.
func (c cond) compile(n int) []insn {
	const jmp = unix.BPF_JMP | unix.BPF_K
	high, low := uint32(c.value>>32), uint32(c.value)
	part := func(offset, mask uint32) []insn {
		code := []insn{load(offArgs + 8*c.arg + offset)}
		if mask != ^uint32(0) {
			code = append(code, insn{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask})
		}
		return code
	}
	loadHigh, loadLow := part(4, uint32(c.mask>>32)), part(0, uint32(c.mask))
	// The code after the high half's load is: its jumps, the low half's load, the low half's jump. Distances are
	// counted from behind each jump. A rule has six conditions at most, so all stay below 255.
	tail := len(loadLow) + 1 // what is left behind the last jump of the high half
	var out []insn
	out = append(out, loadHigh...)
	yes, no := uint8(tail), uint8(tail+n)
	switch c.op {
	case specs.OpEqualTo:
		if high == 0 && c.mask>>32 == 0 {
			return append(loadLow, insn{Code: jmp | unix.BPF_JEQ, Jf: uint8(n), K: low})
		}
		out = append(out, insn{Code: jmp | unix.BPF_JEQ, Jf: no, K: high})
		out = append(out, loadLow...)
		out = append(out, insn{Code: jmp | unix.BPF_JEQ, Jf: uint8(n), K: low})
	case specs.OpNotEqual:
		out = append(out, insn{Code: jmp | unix.BPF_JEQ, Jf: yes, K: high})
		out = append(out, loadLow...)
		out = append(out, insn{Code: jmp | unix.BPF_JEQ, Jt: uint8(n), K: low})
	case specs.OpGreaterThan, specs.OpGreaterEqual:
		out = append(out, insn{Code: jmp | unix.BPF_JGT, Jt: yes + 1, K: high})
		out = append(out, insn{Code: jmp | unix.BPF_JEQ, Jf: no, K: high})
		out = append(out, loadLow...)
		test := insn{Code: jmp | unix.BPF_JGT, Jf: uint8(n), K: low}
		if c.op == specs.OpGreaterEqual {
			test.Code = jmp | unix.BPF_JGE
		}
		out = append(out, test)
	case specs.OpLessThan, specs.OpLessEqual:
		out = append(out, insn{Code: jmp | unix.BPF_JGT, Jt: no + 1, K: high})
		out = append(out, insn{Code: jmp | unix.BPF_JEQ, Jf: yes, K: high})
		out = append(out, loadLow...)
		test := insn{Code: jmp | unix.BPF_JGE, Jt: uint8(n), K: low}
		if c.op == specs.OpLessEqual {
			test.Code = jmp | unix.BPF_JGT
		}
		out = append(out, test)
	}
	return out
}

func load(offset uint32) insn { return insn{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset} }

func ret(action uint32) insn { return insn{Code: unix.BPF_RET | unix.BPF_K, K: action} }

// pack puts an instruction into one word: code, jt, jf, k from the top, 16, 8, 8 and 32 bits.
func pack(i insn) uint64 {
	return uint64(i.Code)<<48 | uint64(i.Jt)<<40 | uint64(i.Jf)<<32 | uint64(i.K)
}

func unpack(words ...uint64) []insn {
	out := make([]insn, len(words))
	for n, w := range words {
		out[n] = insn{Code: uint16(w >> 48), Jt: uint8(w >> 40), Jf: uint8(w >> 32), K: uint32(w)}
	}
	return out
}
