package rights

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// excepted are the capabilities that the default profile makes exceptions for. Others leave the filter as it is.
const excepted uint64 = 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_SYS_MODULE | 1<<unix.CAP_SYS_RAWIO | 1<<unix.CAP_SYS_CHROOT |
	1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_SYS_PACCT | 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_BOOT | 1<<unix.CAP_SYS_NICE |
	1<<unix.CAP_SYS_TIME | 1<<unix.CAP_SYS_TTY_CONFIG | 1<<unix.CAP_SYSLOG | 1<<unix.CAP_PERFMON | 1<<unix.CAP_BPF

// oldestKernel is what the generated filters take for granted: the default profile allows ptrace(2) from 4.8 on,
// where it no longer gets around a filter.
func oldestKernel() [2]uint64 { return [2]uint64{4, 8} }

// filterFor chooses or compiles the filter.
func filterFor(r Request, caps uint64, m machine) ([]unix.SockFilter, uint, error) {
	if r.Seccomp == "" && caps&excepted == DefaultCaps&excepted && !older(m.kernel, oldestKernel()) {
		if filter, ok := generated(m.arch, r.FakeOwnership); ok {
			return filter, 0, nil
		}
	}
	abi, err := abiOf(m.arch)
	if err != nil {
		return nil, 0, err
	}
	switch r.Seccomp {
	case "":
		filter, err := defaultFilter(abi, caps, m.kernel, r.FakeOwnership)
		return filter, 0, err
	case "unconfined":
		if !r.FakeOwnership {
			return nil, 0, nil
		}
		p := policy{calls: map[uint32]verdict{}, otherwise: unix.SECCOMP_RET_ALLOW, beyond: unix.SECCOMP_RET_ALLOW, foreign: unix.SECCOMP_RET_ALLOW}
		p.fakeOwnership(abi)
		return p.compile(abi), 0, nil
	}
	var profile seccomp.Seccomp
	if err := json.Unmarshal([]byte(r.Seccomp), &profile); err != nil {
		return nil, 0, fmt.Errorf("reading seccomp profile: %w", err)
	}
	filter, flags, err := profileFilter(&profile, abi, caps, m.kernel, r.FakeOwnership)
	if err != nil {
		return nil, 0, fmt.Errorf("seccomp profile: %w", err)
	}
	return filter, flags, nil
}

func defaultFilter(abi abi, caps uint64, kernel [2]uint64, fake bool) ([]unix.SockFilter, error) {
	filter, _, err := profileFilter(seccomp.DefaultProfile(), abi, caps, kernel, fake)
	return filter, err
}

func profileFilter(profile *seccomp.Seccomp, abi abi, caps uint64, kernel [2]uint64, fake bool) ([]unix.SockFilter, uint, error) {
	flags, err := flagsOf(profile.Flags)
	if err != nil {
		return nil, 0, err
	}
	p, err := resolve(profile, abi, caps, kernel)
	if err != nil {
		return nil, 0, err
	}
	p.closeTerminalInput(abi)
	if fake {
		p.fakeOwnership(abi)
	}
	filter := p.compile(abi)
	if len(filter) > unix.BPF_MAXINSNS {
		return nil, 0, fmt.Errorf("it compiles to %d instructions, and the kernel takes %d", len(filter), unix.BPF_MAXINSNS)
	}
	return filter, flags, nil
}

// resolve applies the profile's conditions and looks up its names. Names that this architecture does not have are
// passed over, as libseccomp does: one profile serves all.
func resolve(profile *seccomp.Seccomp, abi abi, caps uint64, kernel [2]uint64) (policy, error) {
	if len(profile.Architectures) > 0 && !slices.Contains(profile.Architectures, abi.oci) {
		return policy{}, fmt.Errorf("it is for %s, not for %s", join(profile.Architectures), abi.oci)
	}
	if profile.DefaultAction == "" {
		return policy{}, errors.New("it has no defaultAction")
	}
	otherwise, err := action(profile.DefaultAction, profile.DefaultErrnoRet)
	if err != nil {
		return policy{}, err
	}
	p := policy{calls: map[uint32]verdict{}, otherwise: otherwise, beyond: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS), foreign: unix.SECCOMP_RET_KILL_PROCESS}
	if otherwise == unix.SECCOMP_RET_ALLOW || otherwise == unix.SECCOMP_RET_LOG {
		p.beyond = otherwise // a list of what is forbidden says nothing on newer calls
	}
	held := CapNames(caps)
	for _, s := range profile.Syscalls {
		if !applies(s, abi, held, kernel) {
			continue
		}
		act, err := action(s.Action, s.ErrnoRet)
		if err != nil {
			return policy{}, err
		}
		rules, err := rulesOf(s.Args, act)
		if err != nil {
			return policy{}, err
		}
		calls := s.Names
		//lint:ignore SA1019 profiles of Docker's first versions name one call here
		if s.Name != "" {
			//lint:ignore SA1019 as above
			calls = append(slices.Clone(calls), s.Name)
		}
		for _, name := range calls {
			nr, ok := abi.numbers[name]
			if !ok {
				continue
			}
			p.last = max(p.last, nr)
			v, ok := p.calls[nr]
			if !ok {
				v.otherwise = otherwise
			}
			if len(s.Args) == 0 {
				v.otherwise = act
			}
			v.rules = append(v.rules, rules...)
			p.calls[nr] = v
		}
	}
	return p, nil
}

// applies tells whether a rule's includes and excludes hold, as moby reads them: every included capability, any
// included architecture.
func applies(s *seccomp.Syscall, abi abi, held []string, kernel [2]uint64) bool {
	holds := func(c string) bool { return slices.Contains(held, c) }
	reached := func(k *seccomp.KernelVersion) bool { return !older(kernel, [2]uint64{k.Kernel, k.Major}) }
	if f := s.Excludes; f != nil {
		if slices.Contains(f.Arches, abi.arch) || slices.ContainsFunc(f.Caps, holds) || f.MinKernel != nil && reached(f.MinKernel) {
			return false
		}
	}
	if f := s.Includes; f != nil {
		if len(f.Arches) > 0 && !slices.Contains(f.Arches, abi.arch) || f.MinKernel != nil && !reached(f.MinKernel) {
			return false
		}
		for _, c := range f.Caps {
			if !holds(c) {
				return false
			}
		}
	}
	return true
}

func older(a, b [2]uint64) bool { return slices.Compare(a[:], b[:]) < 0 }

func join(arches []specs.Arch) string {
	var out []string
	for _, a := range arches {
		out = append(out, string(a))
	}
	return strings.Join(out, ", ")
}

// rulesOf turns a rule's conditions, all of which must hold, into rules. Conditions on the same argument are
// alternatives: runc reads them so, and profiles count on it.
func rulesOf(args []specs.LinuxSeccompArg, act uint32) ([]rule, error) {
	if len(args) == 0 {
		return nil, nil
	}
	seen := map[uint]bool{}
	var conds []cond
	again := false
	for _, a := range args {
		if a.Index > 5 {
			return nil, fmt.Errorf("argument %d: a system call has 0 to 5", a.Index)
		}
		c := cond{arg: uint32(a.Index), op: a.Op, value: a.Value, mask: ^uint64(0)}
		switch a.Op {
		case specs.OpMaskedEqual:
			c.op, c.mask, c.value = specs.OpEqualTo, a.Value, a.ValueTwo
		case specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual:
		default:
			return nil, fmt.Errorf("unknown operator %q", a.Op)
		}
		again = again || seen[a.Index]
		seen[a.Index] = true
		conds = append(conds, c)
	}
	if !again {
		return []rule{{conds, act}}, nil
	}
	var out []rule
	for _, c := range conds {
		out = append(out, rule{[]cond{c}, act})
	}
	return out, nil
}

// action is the filter's return value for an action of the profile.
func action(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	number := uint32(unix.EPERM)
	if errno != nil {
		if *errno > 4095 { // MAX_ERRNO
			return 0, fmt.Errorf("errno %d: the highest is 4095", *errno)
		}
		number = uint32(*errno)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | number, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | number, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActNotify:
		return 0, fmt.Errorf("action %s needs an agent that whisk does not have", a)
	}
	return 0, fmt.Errorf("unknown action %q", a)
}

func flagsOf(words []specs.LinuxSeccompFlag) (flags uint, err error) {
	for _, w := range words {
		switch w {
		case specs.LinuxSeccompFlagLog:
			flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case "SECCOMP_FILTER_FLAG_TSYNC":
			// The launcher installs the filter in a process of one thread.
		default:
			return 0, fmt.Errorf("unknown flag %q", w)
		}
	}
	return flags, nil
}

// closeTerminalInput forbids the two ioctls that put words into a terminal as if typed: an app that was given the
// user's terminal could type commands into the shell that started it (CVE-2017-5226). The kernel looks at the low
// half of the argument only, so the rule does too (CVE-2019-7303).
func (p *policy) closeTerminalInput(abi abi) {
	nr := abi.numbers["ioctl"]
	v, ok := p.calls[nr]
	if !ok {
		v.otherwise = p.otherwise
	}
	var closed []rule
	for _, request := range []uint64{unix.TIOCSTI, unix.TIOCLINUX} {
		closed = append(closed, rule{[]cond{{arg: 1, op: specs.OpEqualTo, mask: 0xffffffff, value: request}}, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
	}
	v.rules = append(closed, v.rules...)
	p.calls[nr], p.last = v, max(p.last, nr)
}

// fakeOwnership answers with success, that is with errno 0, what one id cannot do. Changes of the process's ids are
// left to IDFilter, which must lie below: an answer of this filter would outrank its own, seccomp(2).
func (p *policy) fakeOwnership(abi abi) {
	p.settle(abi, unix.SECCOMP_RET_ERRNO, "chown", "lchown", "fchown", "fchownat", "setfsuid", "setfsgid")
	p.settle(abi, unix.SECCOMP_RET_ALLOW, idCalls()...)
	// The launcher makes this call in a process's name; idCalls keeps the app from it.
	p.mark(abi, unix.SECCOMP_RET_ALLOW)
}

// MoveMark is what the launcher has as a second argument of an unshare(CLONE_NEWUSER) that it makes in a process's name.
// The kernel ignores it.
const MoveMark = 0x77686973

// mark gives a marked unshare(2) an answer of its own, before all others.
func (p *policy) mark(abi abi, action uint32) {
	nr := abi.numbers["unshare"]
	v, ok := p.calls[nr]
	if !ok {
		v.otherwise = p.otherwise
	}
	v.rules = append([]rule{{[]cond{
		{arg: 0, op: specs.OpEqualTo, mask: ^uint64(0), value: unix.CLONE_NEWUSER},
		{arg: 1, op: specs.OpEqualTo, mask: ^uint64(0), value: MoveMark},
	}, action}}, v.rules...)
	p.calls[nr], p.last = v, max(p.last, nr)
}

// settle gives system calls one answer, whatever their arguments.
func (p *policy) settle(abi abi, action uint32, names ...string) {
	for _, name := range names {
		if nr, ok := abi.numbers[name]; ok {
			p.calls[nr] = verdict{otherwise: action}
			p.last = max(p.last, nr)
		}
	}
}

func idCalls() []string {
	return []string{"setgroups", "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid"}
}

// IDFilter is a filter for sandboxes with one id, to be installed below that of a plan with FakeOwnership: it gives the
// calls that change a process's ids this answer, SECCOMP_RET_USER_NOTIF or SECCOMP_RET_ERRNO, and allows all others. Who
// is notified is asked for marked calls of unshare(2) and for execve(2), too.
func IDFilter(answer uint32) ([]unix.SockFilter, error) {
	abi, err := abiOf(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	const allow = unix.SECCOMP_RET_ALLOW
	p := policy{calls: map[uint32]verdict{}, otherwise: allow, beyond: allow, foreign: allow}
	p.settle(abi, answer, idCalls()...)
	if answer == unix.SECCOMP_RET_USER_NOTIF {
		p.mark(abi, answer)
		p.settle(abi, answer, "execve", "execveat")
	} else {
		p.mark(abi, unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM))
	}
	return p.compile(abi), nil
}

// abi is what differs between architectures.
type abi struct {
	arch    string     // as GOARCH, and as profiles write it
	oci     specs.Arch // as the OCI writes it
	audit   uint32     // AUDIT_ARCH_*, linux/audit.h
	x32     bool       // numbers from 0x40000000 on are another ABI of the same architecture
	numbers map[string]uint32
}

func abiOf(arch string) (abi, error) {
	switch arch {
	case "amd64":
		return abi{arch, specs.ArchX86_64, unix.AUDIT_ARCH_X86_64, true, numbersOf(numbersAMD64)}, nil
	case "arm64":
		return abi{arch, specs.ArchAARCH64, unix.AUDIT_ARCH_AARCH64, false, numbersOf(numbersARM64)}, nil
	case "riscv64":
		return abi{arch, specs.ArchRISCV64, unix.AUDIT_ARCH_RISCV64, false, numbersOf(numbersRISCV64)}, nil
	}
	return abi{}, fmt.Errorf("seccomp: architecture %s is not supported", arch)
}

// numbersOf reads a generated table: "read 0 write 1 …".
func numbersOf(table string) map[string]uint32 {
	out := make(map[string]uint32, 512)
	fields := strings.Fields(table)
	for pair := range slices.Chunk(fields, 2) {
		n, err := strconv.ParseUint(pair[1], 10, 32)
		if err != nil {
			panic("rights: generated table of system calls: " + err.Error())
		}
		out[pair[0]] = uint32(n)
	}
	return out
}

// sortedCalls are the numbers that the policy speaks about, in order.
func (p policy) sortedCalls() []uint32 { return slices.Sorted(maps.Keys(p.calls)) }

// SystemCalls are this machine's, by name; nil on one whose filters are not known.
func SystemCalls() map[string]uint32 {
	abi, err := abiOf(runtime.GOARCH)
	if err != nil {
		return nil
	}
	return abi.numbers
}
