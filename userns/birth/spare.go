package birth

import (
	"math"
	"os"
	"strconv"
	"syscall"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// LeaveSpare lowers this process's soft limit of processes, RLIMIT_NPROC, so that all that runs in the user namespaces
// it makes from now on leaves the login a quarter of what it may have: a shell that can end a fork bomb. The kernel
// remembers the limit of whoever makes a user namespace, and holds the processes in it, of whatever id, to it together
// with all others of the user (kernel 5.14; older ones count each id by itself, setrlimit(2)). It is to be called
// once, by a process that executes no program of the user's.
func LeaveSpare() error {
	if !wall.Up("spare processes") {
		return nil
	}
	var r syscall.Rlimit
	if err := syscall.Getrlimit(limitProcesses, &r); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	r.Cur = threeQuarters(r.Cur, bound("pid_max"), bound("threads-max"))
	if err := syscall.Setrlimit(limitProcesses, &r); err != nil {
		return os.NewSyscallError("setrlimit", err)
	}
	return nil
}

// threeQuarters is three quarters of what a login may have, by its limit or by the machine's.
func threeQuarters(limit uint64, machine ...uint64) uint64 {
	for _, m := range machine {
		limit = min(limit, m)
	}
	return limit - limit/4
}

// bound reads a number below /proc/sys/kernel; where it cannot be read it bounds nothing.
func bound(name string) uint64 {
	text, _ := os.ReadFile("/proc/sys/kernel/" + name)
	if len(text) == 0 {
		return math.MaxUint64
	}
	n, err := strconv.ParseUint(string(text[:len(text)-1]), 10, 64) // without the newline
	if err != nil {
		return math.MaxUint64
	}
	return n
}
