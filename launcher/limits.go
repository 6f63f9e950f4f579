package launcher

import (
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/internal/wall"
	"github.com/whisk-sandbox/whisk/launcher/cgroup"
)

const (
	// maxProcesses bounds the processes and threads of one sandbox (podman-run(1) has 2048). The kernel keeps it by
	// kernel.pid_max of the sandbox's pid namespace, since 6.14.
	maxProcesses = 4096
	// maxUserProcesses bounds those of one user id on one network, RLIMIT_NPROC: all that older kernels have. It
	// counts a user namespace's own processes, since 5.14, and not those of the login.
	maxUserProcesses = 8192
	// softDescriptors is the soft limit of open files that the kernel and systemd give a login. The keeper's own, which
	// Go raises before any of whisk's code runs, no longer says what it was; the hard limit is still the login's.
	softDescriptors = 1024
	// lowPIDs are numbers that the kernel gives out only once (RESERVED_PIDS): a sandbox may have so many processes
	// fewer than its pid_max says.
	lowPIDs = 300
	// tmpfsFile is how much of a tmpfs's size there is for each file, which takes about 1 kB of the kernel's memory beside.
	tmpfsFile     = 4 << 10
	minTmpfsFiles = 1024
)

// ControlLimits are an app's limits that only a control group can keep.
func ControlLimits(app *config.App) cgroup.Limits {
	l := cgroup.Limits{Memory: app.Memory, MemorySwap: app.MemorySwap, CPUs: app.CPUs, Pids: max(app.Pids, 0), Weight: app.BlkioWeight}
	for _, d := range app.DeviceRates {
		l.Disks = append(l.Disks, cgroup.Disk(d))
	}
	return l
}

// SetLimits writes them into an app, the reverse of ControlLimits. A disk without a limit is left out.
func SetLimits(app *config.App, l cgroup.Limits) {
	app.Memory, app.MemorySwap, app.CPUs, app.Pids, app.BlkioWeight, app.DeviceRates = l.Memory, l.MemorySwap, l.CPUs, l.Pids, l.Weight, nil
	for _, d := range l.Disks {
		if !d.None() {
			app.DeviceRates = append(app.DeviceRates, config.DeviceRate(d))
		}
	}
}

// KeepLimits gives those of a sandbox's ControlLimits that this machine can keep. One that it cannot is an *Error, or, for a
// sandbox that does without, told by lost: a limit that is ignored is worse than none.
func KeepLimits(spec *Spec, m cgroup.Machine) (kept cgroup.Limits, lost string, err error) {
	limits := ControlLimits(&spec.App)
	lost, hint := limits.Lost(m)
	if lost != "" && !spec.BestEffort && wall.Up(failsClosed) {
		return cgroup.Limits{}, lost, &Error{Message: lost, Hint: hint, Exit: ExitWhisk}
	}
	limits = limits.Kept(m)
	disks := cgroup.HereDisks()
	for _, d := range limits.Disks {
		if _, err := disks.Number(d.Path); err != nil {
			return cgroup.Limits{}, "", &Error{Message: "a limit of a disk's rate: " + err.Error(), Hint: "the disks of this machine: lsblk -d", Exit: ExitWhisk}
		}
	}
	return limits, lost, nil
}

// loginLimits are the resource limits of an app that asks for none: those of the login, and a bound on processes.
func loginLimits() []rlimit {
	var out []rlimit
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) == nil && wall.Up("descriptor limit") {
		r.Cur = min(r.Max, softDescriptors)
		out = append(out, rlimit{unix.RLIMIT_NOFILE, r})
	}
	if unix.Getrlimit(unix.RLIMIT_NPROC, &r) == nil && wall.Up("process limit") {
		r.Cur, r.Max = min(r.Cur, maxUserProcesses), min(r.Max, maxUserProcesses)
		out = append(out, rlimit{unix.RLIMIT_NPROC, r})
	}
	return out
}

// planLimits lays the limits that were asked for over the defaults.
func planLimits(asked []config.Ulimit, defaults []rlimit) ([]rlimit, error) {
	out := slices.Clone(defaults)
	for _, u := range asked {
		r, ok := resources()[u.Name]
		if !ok {
			return nil, &Error{Message: fmt.Sprintf("unknown ulimit %q", u.Name), Exit: ExitWhisk}
		}
		if r == unix.RLIMIT_NPROC && !wall.Up("process limit") {
			continue
		}
		out = slices.DeleteFunc(out, func(d rlimit) bool { return d.resource == r })
		out = append(out, rlimit{r, unix.Rlimit{Cur: u.Soft, Max: u.Hard}})
	}
	return out, nil
}

// pidMax is the pid_max of a sandbox with these limits.
func pidMax(limits []rlimit) uint64 {
	for _, l := range limits {
		if l.resource == unix.RLIMIT_NPROC && l.limit.Max > maxUserProcesses {
			return min(l.limit.Max, 4<<20-lowPIDs) + lowPIDs // PID_MAX_LIMIT
		}
	}
	return maxProcesses
}

// boundProcesses makes process 1 bound its pid namespace. Descriptor 0 is /proc, which it may close. Kernels before 6.14 have
// one pid_max for all and refuse.
func boundProcesses(s *script, limits []rlimit) {
	if !wall.Up("process limit") || !wall.Up("pid_max") {
		return
	}
	value := strconv.FormatUint(pidMax(limits), 10)
	s.add("enter /proc", mustWork, unix.SYS_FCHDIR, 0)
	s.add("close /proc", mayFail, unix.SYS_CLOSE, 0)
	s.add("open pid_max", mayFail, unix.SYS_OPENAT2, atCWD, "sys/kernel/pid_max", procHow(), unix.SizeofOpenHow)
	s.add("bound processes", mayFail, unix.SYS_WRITE, 0, value, len(value))
	s.add("close pid_max", mayFail, unix.SYS_CLOSE, 0)
	s.add("leave /proc", mustWork, unix.SYS_CHDIR, "/")
}

// tmpfsFiles is how many files a tmpfs of this size takes, in bytes; 0 is no bound, tmpfs(5).
func tmpfsFiles(size int64) string {
	if !wall.Up("inode limit") {
		return "0"
	}
	return strconv.FormatInt(max(size/tmpfsFile, minTmpfsFiles), 10)
}
