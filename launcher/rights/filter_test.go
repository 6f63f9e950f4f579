package rights

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// call is what a filter sees: struct seccomp_data without the instruction pointer.
type call struct {
	arch   uint32
	number uint32
	args   [6]uint64
}

// run interprets a filter, as strictly as the kernel checks one: aligned loads within seccomp_data, jumps forward and
// within the program.
func run(filter []insn, c call) (uint32, error) {
	word := func(offset uint32) uint32 {
		switch offset {
		case 0:
			return c.number
		case 4:
			return c.arch
		}
		arg := c.args[(offset-16)/8]
		if offset%8 == 4 {
			return uint32(arg >> 32)
		}
		return uint32(arg)
	}
	var a uint32
	for pc := 0; pc < len(filter); pc++ {
		i := filter[pc]
		branch := func(yes bool) {
			if yes {
				pc += int(i.Jt)
			} else {
				pc += int(i.Jf)
			}
		}
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if i.K%4 != 0 || i.K > 60 || i.K == 8 || i.K == 12 {
				return 0, fmt.Errorf("instruction %d loads from %d", pc, i.K)
			}
			a = word(i.K)
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= i.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			branch(a == i.K)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			branch(a > i.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			branch(a >= i.K)
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
		case unix.BPF_RET | unix.BPF_K:
			return i.K, nil
		default:
			return 0, fmt.Errorf("instruction %d has code %#x", pc, i.Code)
		}
	}
	return 0, fmt.Errorf("ran off the end")
}

const (
	allow  = uint32(unix.SECCOMP_RET_ALLOW)
	eperm  = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.EPERM)
	enosys = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.ENOSYS)
	fake   = uint32(unix.SECCOMP_RET_ERRNO)
	kill   = uint32(unix.SECCOMP_RET_KILL_PROCESS)
)

func modern(arch string) machine { return machine{arch: arch, kernel: [2]uint64{6, 12}, lastCap: 40} }

func TestFilterAnswers(t *testing.T) {
	const garbage = 0xdeadbeef_00000000
	for _, arch := range []string{"amd64", "arm64", "riscv64"} {
		abi, err := abiOf(arch)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			what    string
			request Request
			call    string
			args    [6]uint64
			want    uint32
		}{
			{what: "plain work", call: "read", want: allow},
			{what: "plain work", call: "openat", want: allow},
			{what: "threads", call: "clone", args: [6]uint64{unix.CLONE_VM | unix.CLONE_THREAD}, want: allow},
			{what: "namespaces", call: "clone", args: [6]uint64{unix.CLONE_NEWUSER}, want: eperm},
			{what: "namespaces", call: "clone", args: [6]uint64{unix.CLONE_NEWNET | 17}, want: eperm},
			{what: "flags behind a pointer", call: "clone3", want: enosys},
			{what: "namespaces", call: "unshare", args: [6]uint64{unix.CLONE_NEWUSER}, want: eperm},
			{what: "namespaces", call: "setns", want: eperm},
			{what: "mounts", call: "mount", want: eperm},
			{what: "mounts", call: "fsopen", want: eperm},
			{what: "mounts", call: "mount_setattr", want: eperm},
			{what: "keys are not namespaced", call: "keyctl", want: eperm},
			{what: "keys are not namespaced", call: "add_key", want: eperm},
			{what: "kernel", call: "bpf", want: eperm},
			{what: "kernel", call: "perf_event_open", want: eperm},
			{what: "kernel", call: "kexec_load", want: eperm},
			{what: "kernel", call: "init_module", want: eperm},
			{what: "kernel", call: "userfaultfd", want: eperm},
			{what: "io_uring", call: "io_uring_setup", want: eperm},
			{what: "io_uring", call: "io_uring_enter", want: eperm},
			{what: "io_uring", call: "io_uring_register", want: eperm},
			{what: "safe since 4.8", call: "ptrace", want: allow},
			{what: "chroot needs its capability", call: "chroot", want: allow},
			{what: "chroot needs its capability", request: Request{CapDrop: []string{"ALL"}}, call: "chroot", want: eperm},
			{what: "with SYS_ADMIN", request: Request{CapAdd: []string{"SYS_ADMIN"}}, call: "mount", want: allow},
			{what: "with SYS_ADMIN", request: Request{CapAdd: []string{"SYS_ADMIN"}}, call: "clone3", want: allow},
			{what: "with SYS_ADMIN", request: Request{CapAdd: []string{"SYS_ADMIN"}}, call: "unshare", want: allow},
			{what: "with NET_ADMIN", request: Request{CapAdd: []string{"NET_ADMIN"}}, call: "mount", want: eperm},
			{what: "with SYS_TIME", request: Request{CapAdd: []string{"SYS_TIME"}}, call: "clock_settime", want: allow},
			{what: "personality of Linux", call: "personality", args: [6]uint64{0}, want: allow},
			{what: "personality asked for", call: "personality", args: [6]uint64{0xffffffff}, want: allow},
			{what: "personality without randomness", call: "personality", args: [6]uint64{0x40000}, want: eperm},
			{what: "sockets", call: "socket", args: [6]uint64{unix.AF_INET6}, want: allow},
			{what: "sockets", call: "socket", args: [6]uint64{unix.AF_NETLINK}, want: allow},
			{what: "sockets to the host's machines", call: "socket", args: [6]uint64{unix.AF_VSOCK}, want: eperm},
			{what: "sockets to the kernel's ciphers", call: "socket", args: [6]uint64{unix.AF_ALG}, want: eperm},
			{what: "terminal", call: "ioctl", args: [6]uint64{0, unix.TIOCGWINSZ}, want: allow},
			{what: "typing into the terminal", call: "ioctl", args: [6]uint64{0, unix.TIOCSTI}, want: eperm},
			{what: "typing into the terminal", call: "ioctl", args: [6]uint64{0, unix.TIOCSTI | garbage}, want: eperm},
			{what: "pasting on the console", call: "ioctl", args: [6]uint64{0, unix.TIOCLINUX}, want: eperm},
			{what: "owners", call: "fchownat", want: allow},
			{what: "owners with one id", request: Request{FakeOwnership: true}, call: "fchownat", want: fake},
			{what: "ids with one id", request: Request{FakeOwnership: true}, call: "setresuid", want: allow},
			{what: "groups with one id", request: Request{FakeOwnership: true}, call: "setgroups", want: allow},
			{what: "devices with one id", request: Request{FakeOwnership: true}, call: "mknodat", want: allow},
			{what: "the rest with one id", request: Request{FakeOwnership: true}, call: "mount", want: eperm},
			{what: "one id, unconfined", request: Request{FakeOwnership: true, Seccomp: "unconfined"}, call: "mount", want: allow},
			{what: "one id, unconfined", request: Request{FakeOwnership: true, Seccomp: "unconfined"}, call: "fchown", want: fake},
		} {
			r, err := plan(c.request, modern(arch))
			if err != nil {
				t.Fatal(err)
			}
			number, ok := abi.numbers[c.call]
			if !ok {
				t.Fatalf("%s has no %s", arch, c.call)
			}
			got, err := run(r.Filter, call{abi.audit, number, c.args})
			if err != nil || got != c.want {
				t.Errorf("%s, %s: %s(%#x) = %#x, %v, want %#x", arch, c.what, c.call, c.args, got, err, c.want)
			}
		}
		r, err := plan(Request{}, modern(arch))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			what string
			call call
			want uint32
		}{
			{"a call newer than the profile", call{arch: abi.audit, number: 600}, enosys},
			{"a call that a tracer skips", call{arch: abi.audit, number: ^uint32(0)}, enosys},
			{"i386", call{arch: unix.AUDIT_ARCH_I386, number: 4}, kill},
			{"32-bit ARM", call{arch: unix.AUDIT_ARCH_ARM, number: 4}, kill},
		} {
			if got, err := run(r.Filter, c.call); err != nil || got != c.want {
				t.Errorf("%s, %s: %#x, %v, want %#x", arch, c.what, got, err, c.want)
			}
		}
		if arch == "amd64" {
			if got, _ := run(r.Filter, call{arch: abi.audit, number: x32Bit}); got != kill {
				t.Errorf("x32: %#x, want %#x", got, kill)
			}
		}
	}
}

// TestFilterSaysWhatThePolicySays compares the compiled search with the table it was made from, for every number.
func TestFilterSaysWhatThePolicySays(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	abi, err := abiOf("amd64")
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		p := policy{calls: map[uint32]verdict{}, otherwise: eperm, beyond: enosys, foreign: kill}
		for range random.IntN(300) {
			nr := random.Uint32N(500)
			v := verdict{otherwise: []uint32{allow, eperm, fake}[random.IntN(3)]}
			for range random.IntN(3) * random.IntN(60) { // now and then further than a conditional jump reaches
				v.rules = append(v.rules, rule{[]cond{{arg: random.Uint32N(6), op: specs.OpEqualTo, mask: ^uint64(0), value: random.Uint64N(3)}}, kill})
			}
			p.calls[nr], p.last = v, max(p.last, nr)
		}
		filter := p.compile(abi)
		for nr := range uint32(520) {
			c := call{arch: abi.audit, number: nr, args: [6]uint64{1, 2, 3, 1, 2, 3}}
			if got, err := run(filter, c); err != nil || got != p.answer(c) {
				t.Fatalf("call %d of %+v: %#x, %v, want %#x", nr, p.calls[nr], got, err, p.answer(c))
			}
		}
	}
}

// answer is the policy without a machine.
func (p policy) answer(c call) uint32 {
	v, ok := p.calls[c.number]
	switch {
	case !ok && c.number > p.last:
		return p.beyond
	case !ok:
		return p.otherwise
	}
	for _, r := range v.rules {
		fits := true
		for _, d := range r.conds {
			fits = fits && d.holds(c.args[d.arg])
		}
		if fits {
			return r.action
		}
	}
	return v.otherwise
}

func (c cond) holds(arg uint64) bool {
	arg &= c.mask
	switch c.op {
	case specs.OpEqualTo:
		return arg == c.value
	case specs.OpNotEqual:
		return arg != c.value
	case specs.OpGreaterThan:
		return arg > c.value
	case specs.OpGreaterEqual:
		return arg >= c.value
	case specs.OpLessThan:
		return arg < c.value
	default:
		return arg <= c.value
	}
}

func TestConditionsCompareSixtyFourBits(t *testing.T) {
	numbers := []uint64{0, 1, 2, 0xffffffff, 1 << 32, 1<<32 + 1, 2 << 32, 2<<32 + 1, ^uint64(0)}
	abi, err := abiOf("arm64")
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual} {
		for _, mask := range []uint64{^uint64(0), 0xffffffff, 0xffffffff00000001} {
			for _, value := range numbers {
				// Two conditions, so that a miss jumps over code in between.
				r := rule{[]cond{{1, op, mask, value}, {2, op, mask, value}}, fake}
				p := policy{calls: map[uint32]verdict{7: {rules: []rule{r}, otherwise: eperm}}, last: 7}
				filter := p.compile(abi)
				for _, a := range numbers {
					for _, b := range numbers {
						c := call{abi.audit, 7, [6]uint64{9, a, b}}
						if got, err := run(filter, c); err != nil || got != p.answer(c) {
							t.Fatalf("%s %#x, mask %#x: arguments %#x, %#x: %#x, %v, want %#x", op, value, mask, a, b, got, err, p.answer(c))
						}
					}
				}
			}
		}
	}
}

func TestOwnProfile(t *testing.T) {
	number := func(name string) uint32 { abi, _ := abiOf("amd64"); return abi.numbers[name] }
	for name, c := range map[string]struct {
		text  string
		caps  []string
		call  call
		want  uint32
		error string
	}{
		"a list of what is forbidden":          {text: `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","nonsense"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}`, call: call{number: number("mkdir")}, want: enosys},
		"and the rest":                         {text: `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}`, call: call{number: 700}, want: allow},
		"newer than a list of what is allowed": {text: `{"defaultAction":"SCMP_ACT_KILL_PROCESS","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`, call: call{number: number("mkdir")}, want: enosys},
		"an old profile's name":                {text: `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"name":"read","action":"SCMP_ACT_ALLOW"}]}`, call: call{number: number("read")}, want: allow},
		"only with a capability":               {text: `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}}]}`, caps: []string{"SYS_ADMIN"}, call: call{number: number("mount")}, want: allow},
		"without it":                           {text: `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},{"names":["swapoff"],"action":"SCMP_ACT_ERRNO"}]}`, call: call{number: number("mount")}, want: eperm},
		"only on a newer kernel":               {text: `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"6.13"}},{"names":["swapoff"],"action":"SCMP_ACT_ERRNO"}]}`, call: call{number: number("mount")}, want: eperm},
		"one argument twice: either":           {text: `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}`, call: call{number: number("read"), args: [6]uint64{2}}, want: allow},
		"typing stays closed":                  {text: `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[]}`, call: call{number: number("ioctl"), args: [6]uint64{0, unix.TIOCSTI}}, want: eperm},

		"not JSON":            {text: `{`, error: "reading seccomp profile"},
		"empty":               {text: `{}`, error: "no defaultAction"},
		"unknown action":      {text: `{"defaultAction":"SCMP_ACT_MAYBE"}`, error: `unknown action "SCMP_ACT_MAYBE"`},
		"an agent":            {text: `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}`, error: "SCMP_ACT_NOTIFY needs an agent"},
		"another machine":     {text: `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_S390X"]}`, error: "it is for SCMP_ARCH_S390X, not for SCMP_ARCH_X86_64"},
		"a seventh argument":  {text: `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}`, error: "argument 6"},
		"unknown operator":    {text: `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":0,"op":"=="}]}]}`, error: `unknown operator "=="`},
		"an errno out of use": {text: `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":70000}`, error: "errno 70000"},
		"unknown flag":        {text: `{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}`, error: `unknown flag "X"`},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := plan(Request{Seccomp: c.text, CapAdd: c.caps}, modern("amd64"))
			if c.error != "" || err != nil {
				if err == nil || c.error == "" || !strings.Contains(err.Error(), c.error) {
					t.Fatalf("plan: %v, want %q", err, c.error)
				}
				return
			}
			c.call.arch = unix.AUDIT_ARCH_X86_64
			if got, err := run(r.Filter, c.call); err != nil || got != c.want {
				t.Errorf("answer = %#x, %v, want %#x", got, err, c.want)
			}
		})
	}
}

func BenchmarkPlanDefault(b *testing.B) {
	for b.Loop() {
		if _, err := Plan(Request{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPlanCompiled(b *testing.B) {
	for b.Loop() {
		if _, err := Plan(Request{CapAdd: []string{"SYS_PTRACE"}}); err != nil {
			b.Fatal(err)
		}
	}
}
