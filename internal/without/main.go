// Command without runs a program on a kernel that lacks something: a seccomp filter answers the named system calls
// with an errno, as a kernel built without them or a stricter host would. Tests of what whisk does then use it.
//
//	without CALL[:ARG=VALUE]=ERRNO … -- PROGRAM ARG…
//
// ARG is the number of an argument, 0 to 5, and VALUE bits of it that must be set, with == in place of = all of it. It sets
// no_new_privs, so setuid helpers do not work in the program; called suidwithout, and set-user-id of root, as the suite that
// root starts makes it for the user of its tests alone, it does not, and they do.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "without:", err)
		os.Exit(120)
	}
}

// calls that tests take away.
func calls() map[string]uint32 {
	return map[string]uint32{
		"seccomp": unix.SYS_SECCOMP, "clone": unix.SYS_CLONE, "clone3": unix.SYS_CLONE3, "unshare": unix.SYS_UNSHARE, "keyctl": unix.SYS_KEYCTL,
		"landlock_create_ruleset": unix.SYS_LANDLOCK_CREATE_RULESET, "landlock_restrict_self": unix.SYS_LANDLOCK_RESTRICT_SELF,
		"close_range": unix.SYS_CLOSE_RANGE, "pivot_root": unix.SYS_PIVOT_ROOT, "prctl": unix.SYS_PRCTL, "capset": unix.SYS_CAPSET,
		"socket": unix.SYS_SOCKET, "openat2": unix.SYS_OPENAT2, "ptrace": unix.SYS_PTRACE,
	}
}

func run(args []string) error {
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}}
	for len(args) > 0 && args[0] != "--" {
		insns, err := rule(args[0])
		if err != nil {
			return err
		}
		filter, args = append(filter, insns...), args[1:]
	}
	if len(args) < 2 {
		return fmt.Errorf("usage: without CALL[:ARG=VALUE]=ERRNO … -- PROGRAM ARG…")
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	path, err := exec.LookPath(args[1])
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	helpers := filepath.Base(os.Args[0]) == "suidwithout"
	if helpers && os.Geteuid() != 0 {
		return errors.New("newuidmap works below a filter of root's only: start the tests as root, and they make themselves a user")
	}
	if !helpers {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no_new_privs: %w", err)
		}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return fmt.Errorf("install filter: %w", errno)
	}
	// A user's own ids and no others again.
	if err := errors.Join(syscall.Setresgid(os.Getgid(), os.Getgid(), os.Getgid()), syscall.Setresuid(os.Getuid(), os.Getuid(), os.Getuid())); err != nil {
		return fmt.Errorf("become the caller: %w", err)
	}
	return unix.Exec(path, args[1:], os.Environ())
}

// rule leaves the number of the system call in the accumulator.
func rule(word string) ([]unix.SockFilter, error) {
	i := strings.LastIndexByte(word, '=')
	if i < 0 {
		return nil, fmt.Errorf("%q has no errno", word)
	}
	name, errnoName := word[:i], word[i+1:]
	errno, ok := map[string]unix.Errno{"ENOSYS": unix.ENOSYS, "EPERM": unix.EPERM, "ENOSPC": unix.ENOSPC, "EINVAL": unix.EINVAL, "EPROTONOSUPPORT": unix.EPROTONOSUPPORT}[errnoName]
	if !ok {
		return nil, fmt.Errorf("%q: errno %q is not known here", word, errnoName)
	}
	name, condition, some := strings.Cut(name, ":")
	nr, ok := calls()[name]
	if !ok {
		return nil, fmt.Errorf("%q: system call %q is not known here", word, name)
	}
	const load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	answer := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)}
	if !some {
		return []unix.SockFilter{{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr}, answer}, nil
	}
	arg, value, ok := strings.Cut(condition, "=")
	compare := uint16(unix.BPF_JSET)
	if whole, is := strings.CutPrefix(value, "="); is {
		compare, value = unix.BPF_JEQ, whole
	}
	n, err1 := strconv.ParseUint(arg, 10, 3)
	v, err2 := strconv.ParseUint(value, 0, 32)
	if !ok || err1 != nil || err2 != nil || n > 5 {
		return nil, fmt.Errorf("%q: want CALL:ARG=VALUE=ERRNO", word)
	}
	return []unix.SockFilter{
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 4, K: nr},
		{Code: load, K: uint32(16 + 8*n)},
		{Code: unix.BPF_JMP | compare | unix.BPF_K, Jf: 1, K: uint32(v)},
		answer,
		{Code: load, K: 0},
	}, nil
}
