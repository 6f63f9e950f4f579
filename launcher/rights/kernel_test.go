package rights

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if os.Args[0] == "under-filter" {
		if err := underFilter(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// probe is a system call that the kernel answers with one errno and the filter with another, whoever asks.
type probe struct {
	name   string
	number uintptr
	args   [4]uintptr
	free   unix.Errno // without a filter
	usual  unix.Errno // with the default one
	oneID  unix.Errno // with the one for one id
}

const nowhere = ^uintptr(0) // not a descriptor, a pid or an address

// probes leave nothing behind where they succeed.
func probes() []probe {
	missing := uintptr(unsafe.Pointer(&[]byte("/nowhere\x00")[0]))
	return []probe{
		{"fcntl", unix.SYS_FCNTL, [4]uintptr{nowhere}, unix.EBADF, unix.EBADF, unix.EBADF},
		{"mount", unix.SYS_MOUNT, [4]uintptr{}, unix.EFAULT, unix.EPERM, unix.EPERM},
		{"unshare(NEWUSER and an unknown flag)", unix.SYS_UNSHARE, [4]uintptr{unix.CLONE_NEWUSER | 1}, unix.EINVAL, unix.EPERM, unix.EPERM},
		{"setns", unix.SYS_SETNS, [4]uintptr{nowhere}, unix.EBADF, unix.EPERM, unix.EPERM},
		{"clone3", unix.SYS_CLONE3, [4]uintptr{0, 0}, unix.EINVAL, unix.ENOSYS, unix.ENOSYS},
		{"keyctl(an unknown command)", unix.SYS_KEYCTL, [4]uintptr{9999}, unix.EOPNOTSUPP, unix.EPERM, unix.EPERM},
		{"ptrace", unix.SYS_PTRACE, [4]uintptr{unix.PTRACE_DETACH, nowhere >> 33}, unix.ESRCH, unix.ESRCH, unix.ESRCH},
		{"personality(asked for)", unix.SYS_PERSONALITY, [4]uintptr{0xffffffff}, 0, 0, 0},
		{"personality(no randomness)", unix.SYS_PERSONALITY, [4]uintptr{0x40000}, 0, unix.EPERM, unix.EPERM},
		{"socket(AF_VSOCK, an unknown type)", unix.SYS_SOCKET, [4]uintptr{unix.AF_VSOCK, 99}, unix.EINVAL, unix.EPERM, unix.EPERM},
		{"socket(AF_INET, an unknown type)", unix.SYS_SOCKET, [4]uintptr{unix.AF_INET, 99}, unix.EINVAL, unix.EINVAL, unix.EINVAL},
		{"ioctl(TIOCSTI)", unix.SYS_IOCTL, [4]uintptr{nowhere, unix.TIOCSTI}, unix.EBADF, unix.EPERM, unix.EPERM},
		{"ioctl(TIOCSTI, high bits set)", unix.SYS_IOCTL, [4]uintptr{nowhere, 1<<32 | unix.TIOCSTI}, unix.EBADF, unix.EPERM, unix.EPERM},
		{"ioctl(TIOCLINUX)", unix.SYS_IOCTL, [4]uintptr{nowhere, unix.TIOCLINUX}, unix.EBADF, unix.EPERM, unix.EPERM},
		{"ioctl(TIOCGWINSZ)", unix.SYS_IOCTL, [4]uintptr{nowhere, unix.TIOCGWINSZ}, unix.EBADF, unix.EBADF, unix.EBADF},
		{"io_uring_enter", unix.SYS_IO_URING_ENTER, [4]uintptr{nowhere}, unix.EBADF, unix.EPERM, unix.EPERM},
		{"a call that no kernel has", 4000, [4]uintptr{}, unix.ENOSYS, unix.ENOSYS, unix.ENOSYS},
		{"fchownat", unix.SYS_FCHOWNAT, [4]uintptr{nowhere - 99, missing, 1, 1}, unix.ENOENT, unix.ENOENT, 0},
		{"fchown", unix.SYS_FCHOWN, [4]uintptr{nowhere, 1, 1}, unix.EBADF, unix.EBADF, 0},
	}
}

// underFilter installs the filter that standard input asks for, and writes the probes' errnos.
func underFilter() error {
	var r Request
	if err := json.NewDecoder(os.Stdin).Decode(&r); err != nil {
		return err
	}
	runtime.LockOSThread()
	p, err := Plan(r)
	if err != nil {
		return err
	}
	cost := work()
	if p.Filter != nil {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		prog := unix.SockFprog{Len: uint16(len(p.Filter)), Filter: &p.Filter[0]}
		if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(p.FilterFlags), uintptr(unsafe.Pointer(&prog))); errno != 0 {
			return fmt.Errorf("seccomp: %w", errno)
		}
	}
	fmt.Fprintf(os.Stderr, "a system call costs %v without and %v with this filter\n", cost, work())
	errnos := map[string]unix.Errno{}
	for _, p := range probes() {
		_, _, errnos[p.name] = unix.RawSyscall6(p.number, p.args[0], p.args[1], p.args[2], p.args[3], 0, 0)
	}
	return json.NewEncoder(os.Stdout).Encode(errnos)
}

// work measures a call that the kernel does nothing for.
func work() time.Duration {
	const times = 200_000
	begin := time.Now()
	for range times {
		unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
	}
	return time.Since(begin) / times
}

func TestKernelKeepsTheFilter(t *testing.T) {
	for name, c := range map[string]struct {
		request Request
		want    func(probe) unix.Errno
	}{
		"unconfined": {Request{Seccomp: "unconfined"}, func(p probe) unix.Errno { return p.free }},
		"default":    {Request{}, func(p probe) unix.Errno { return p.usual }},
		"compiled":   {Request{CapAdd: []string{"SYS_NICE"}}, func(p probe) unix.Errno { return p.usual }},
		"one id":     {Request{FakeOwnership: true}, func(p probe) unix.Errno { return p.oneID }},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Args = []string{"under-filter"}
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			go func() { json.NewEncoder(in).Encode(c.request); in.Close() }()
			var said strings.Builder
			cmd.Stderr = &said
			out, err := cmd.Output()
			t.Log(said.String())
			if err != nil {
				t.Fatal(err)
			}
			var got map[string]unix.Errno
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("%q: %v", out, err)
			}
			for _, p := range probes() {
				if got[p.name] != c.want(p) {
					t.Errorf("%s: %q (%d), want %q", p.name, got[p.name].Error(), got[p.name], c.want(p).Error())
				}
			}
		})
	}
}
