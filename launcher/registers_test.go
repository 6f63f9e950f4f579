//go:build amd64 || arm64 || riscv64

package launcher

import (
	"debug/elf"
	"debug/gosym"
	"strings"
	"testing"
)

// TestCallsInTheNameOfAThread: a call that is set up is where it was interrupted, and returns behind its instruction.
func TestCallsInTheNameOfAThread(t *testing.T) {
	const at = 0x401000
	n := &idNotice{number: 7, args: [6]uint64{1, 2, 3, 4, 5, 6}}
	var r registers
	r.setCall(at, uint64(n.number), n.args)
	if r.counter() != at {
		t.Errorf("the call is set up at %#x, want %#x", r.counter(), at)
	}
	interrupt(&r, n)
	got, ok := r.interrupted(n)
	if !ok || got != at {
		t.Errorf("interrupted at %#x, %v, want %#x", got, ok, at)
	}
	if _, ok := r.interrupted(&idNotice{number: 8, args: n.args}); ok {
		t.Error("another call is taken for it")
	}
	r.setReturn(at, -1)
	if r.result() != -1 || r.counter() != at+uint64(len(syscallWord)) {
		t.Errorf("it returns %d at %#x", r.result(), r.counter())
	}
	if _, ok := r.interrupted(n); ok {
		t.Error("a call that has returned is taken for one that was interrupted")
	}
}

// TestSyscallWord: the instruction is the one that this program makes its own calls with.
func TestSyscallWord(t *testing.T) {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text := f.Section(".text")
	code, err := text.Data()
	if err != nil {
		t.Fatal(err)
	}
	lines, err := f.Section(".gopclntab").Data()
	if err != nil {
		t.Fatal(err)
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(lines, text.Addr))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range table.Funcs {
		if strings.HasPrefix(f.Name, "internal/runtime/syscall") && strings.HasSuffix(f.Name, ".Syscall6") {
			if !strings.Contains(string(code[f.Entry-text.Addr:f.End-text.Addr]), syscallWord) {
				t.Errorf("%s does not have % x", f.Name, syscallWord)
			}
			return
		}
	}
	t.Fatal("Go's own system call is not found")
}
