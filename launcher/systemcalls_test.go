package launcher

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher/rights"
)

// proberName is where the test binary is mounted in a sandbox, and how it knows that it is to make system calls.
const proberName = "/mnt/prober"

// magic in the sixth argument marks the prober's calls; no rule of the profile looks at that argument.
const magic = 0x7768736b

// probed is one call and what it must be answered by the filter.
type probed struct {
	Name string
	Nr   uintptr
	Args [3]uint64
	Want string // "allowed", "EPERM", "ENOSYS" …
}

// probe makes the calls that standard input lists, without letting the kernel carry one out: a filter of its own below
// the sandbox's gives all marked calls to a tracer that is not there, which ends them with ENOSYS, seccomp(2). An errno
// of the sandbox's filter comes first.
func probe() error {
	var list []probed
	if err := json.NewDecoder(os.Stdin).Decode(&list); err != nil {
		return err
	}
	runtime.LockOSThread()
	const load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	filter := []unix.SockFilter{
		{Code: load, K: 16 + 8*5},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: magic},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_TRACE},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return fmt.Errorf("install filter: %w", errno)
	}
	got := make([]unix.Errno, len(list))
	for i, p := range list {
		_, _, got[i] = unix.RawSyscall6(p.Nr, uintptr(p.Args[0]), uintptr(p.Args[1]), uintptr(p.Args[2]), 0, 0, magic)
	}
	return json.NewEncoder(os.Stdout).Encode(got)
}

// oracle answers a call as the profile's text does, read by moby itself and not by our compiler.
func oracle(profile *specs.LinuxSeccomp, name string, args [3]uint64) string {
	for _, rule := range profile.Syscalls {
		if !slices.Contains(rule.Names, name) || !fits(rule.Args, args) {
			continue
		}
		switch {
		case rule.Action == specs.ActAllow:
			return "allowed"
		case rule.Action == specs.ActErrno && rule.ErrnoRet != nil:
			return unix.ErrnoName(unix.Errno(*rule.ErrnoRet))
		case rule.Action == specs.ActErrno:
			return "EPERM"
		}
	}
	// whisk's own: what is newer than the profile is not there, so that programs fall back.
	numbers := rights.SystemCalls()
	for _, rule := range profile.Syscalls {
		for _, known := range rule.Names {
			if nr, ok := numbers[known]; ok && nr >= numbers[name] {
				return "EPERM"
			}
		}
	}
	return "ENOSYS"
}

// fits tells whether a rule's conditions hold: all of them, or, where two look at one argument, any, as runc has it.
func fits(conds []specs.LinuxSeccompArg, args [3]uint64) bool {
	var held int
	seen := map[uint]bool{}
	for _, c := range conds {
		seen[c.Index] = true
		arg := args[c.Index]
		if (c.Op == specs.OpEqualTo && arg == c.Value) || (c.Op == specs.OpNotEqual && arg != c.Value) ||
			(c.Op == specs.OpLessThan && arg < c.Value) || (c.Op == specs.OpLessEqual && arg <= c.Value) ||
			(c.Op == specs.OpGreaterThan && arg > c.Value) || (c.Op == specs.OpGreaterEqual && arg >= c.Value) ||
			(c.Op == specs.OpMaskedEqual && arg&c.Value == c.ValueTwo) {
			held++
		}
	}
	return held == len(conds) || len(seen) < len(conds) && held > 0
}

// table makes calls of all system calls of this machine, for each value that a rule compares an argument with, and
// for one that none does.
func table(t *testing.T, caps uint64) []probed {
	t.Helper()
	spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: rights.CapNames(caps)}}}
	profile, err := seccomp.GetDefaultProfile(spec)
	if err != nil {
		t.Fatal(err)
	}
	var list []probed
	for name, nr := range rights.SystemCalls() {
		if name == "uprobe" || name == "uretprobe" {
			continue // the kernel's own trampolines: no filter is asked (kernel 6.14), and others than they are killed
		}
		tries := [][3]uint64{{}}
		for _, rule := range profile.Syscalls {
			if !slices.Contains(rule.Names, name) {
				continue
			}
			for _, a := range rule.Args {
				if a.Index > 2 {
					t.Fatalf("%s: a rule looks at argument %d", name, a.Index)
				}
				for _, v := range []uint64{a.Value, a.Value + 1, a.ValueTwo, 1 << 32} {
					var args [3]uint64
					args[a.Index] = v
					tries = append(tries, args)
				}
			}
		}
		if name == "ioctl" {
			tries = append(tries, [3]uint64{0, unix.TIOCSTI}, [3]uint64{0, unix.TIOCLINUX}, [3]uint64{0, 1<<32 | unix.TIOCSTI})
		}
		for _, args := range tries {
			want := oracle(profile, name, args)
			if request := uint32(args[1]); name == "ioctl" && (request == unix.TIOCSTI || request == unix.TIOCLINUX) {
				want = "EPERM" // whisk's own addition
			}
			list = append(list, probed{Name: name, Nr: uintptr(nr), Args: args, Want: want})
		}
	}
	return list
}

func TestSystemCallsAnswerAsTheProfileSays(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		add  []string
		caps uint64
	}{
		"by default":               {nil, rights.DefaultCaps},
		"with CAP_SYS_ADMIN":       {[]string{"SYS_ADMIN"}, rights.DefaultCaps | 1<<unix.CAP_SYS_ADMIN},
		"with CAP_SYS_PTRACE, BPF": {[]string{"SYS_PTRACE", "BPF"}, rights.DefaultCaps | 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_BPF},
	} {
		t.Run(name, func(t *testing.T) {
			list := table(t, c.caps)
			doc, err := json.Marshal(list)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := os.WriteFile(dir+"/list", doc, 0o644); err != nil {
				t.Fatal(err)
			}
			out, code := runHost(t, func(j *job) {
				j.Spec.App.CapAdd = c.add
				j.Spec.App.Mounts = []config.Mount{
					{Kind: config.MountBind, Source: self, Target: proberName, ReadOnly: true},
					{Kind: config.MountBind, Source: dir, Target: "/mnt/dir", ReadOnly: true},
				}
			}, "sh", "-c", "exec "+proberName+" </mnt/dir/list")
			var got []unix.Errno
			if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || len(got) != len(list) {
				t.Fatalf("exit code %d, %v:\n%s", code, err, out)
			}
			allowed := 0
			for i, p := range list {
				if p.Want == "allowed" {
					allowed++
				}
				// A call that the filter lets through ends with ENOSYS, so it is not told from one that the profile
				// answers so; TestKernelKeepsTheFilter has clone3, which is the only one.
				want := p.Want
				if want == "allowed" {
					want = "ENOSYS"
				}
				if have := unix.ErrnoName(got[i]); have != want {
					t.Errorf("%s(%#x, %#x, %#x): %s, want %s", p.Name, p.Args[0], p.Args[1], p.Args[2], have, p.Want)
				}
			}
			t.Logf("%d calls of %d system calls, %d allowed", len(list), len(rights.SystemCalls()), allowed)
			if allowed < 300 || allowed > len(list)-50 {
				t.Errorf("%d of %d calls are allowed: is the profile read?", allowed, len(list))
			}
		})
	}
}
