package rights

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Fence is what Landlock is to handle, landlock(7): whatever is handled and not allowed by a rule is denied. The zero
// value is no fence.
type Fence struct {
	ABI     int    // of the kernel; 0: it has no Landlock
	FS      uint64 // LANDLOCK_ACCESS_FS_*
	Scoped  uint64 // LANDLOCK_SCOPE_*
	Signals bool   // there is a scope for signals round the whole sandbox, see ScopeSignals
}

// fileAccess are the rights that a rule on a single file may give.
const fileAccess = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
	unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

// PlanFence handles all access to files that the ABI knows of, and abstract sockets. A rule with all of FS on the root
// of a sandbox then allows what lies below it, mounts included, and nothing else.
//
// Signals have a scope of their own, since process 1 is outside of the fence, and the app must be able to end its sandbox with
// kill 1. A kernel that applies it to threads of one process, as the first that know it do, has none: the Go runtime's threads
// signal each other. errata are those that the kernel has mended, as LandlockErrata tells.
func PlanFence(abi, errata int) Fence {
	if abi < 1 {
		return Fence{}
	}
	f := Fence{ABI: abi, FS: unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1}
	for _, later := range []struct {
		abi int
		fs  uint64
	}{
		{2, unix.LANDLOCK_ACCESS_FS_REFER}, // without it, all links and renames between folders are denied
		{3, unix.LANDLOCK_ACCESS_FS_TRUNCATE},
		{5, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV},
		{9, unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX},
	} {
		if abi >= later.abi {
			f.FS |= later.fs
		}
	}
	if abi >= 6 {
		f.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		f.Signals = errata&scopedThreads != 0
	}
	return f
}

// scopedThreads is erratum 2, "scoped signal handling": kernels 6.15, 6.14.2 and 6.12.23.
const scopedThreads = 1 << (2 - 1)

// ScopeSignals keeps the calling thread, and all that it will fork, from signals to processes that are not among these, for ever:
// the pid namespace's wall once more. It forbids nothing else, mount(2) neither. Without a scope it does nothing. It needs
// no_new_privs or CAP_SYS_ADMIN.
func (f Fence) ScopeSignals() error {
	if !f.Signals {
		return nil
	}
	set, err := Fence{Scoped: unix.LANDLOCK_SCOPE_SIGNAL}.Rules()
	if err != nil {
		return err
	}
	defer set.Close()
	return set.Restrict()
}

// FileAccess are the rights that reopening a descriptor with these open(2) flags takes.
func (f Fence) FileAccess(flags int) uint64 {
	var access uint64
	if mode := flags & unix.O_ACCMODE; mode != unix.O_WRONLY {
		access |= unix.LANDLOCK_ACCESS_FS_READ_FILE
	}
	if mode := flags & unix.O_ACCMODE; mode != unix.O_RDONLY {
		access |= unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	return (access | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV) & fileAccess & f.FS
}

// LandlockABI asks the kernel; 0 where it was built without Landlock or started with it switched off.
func LandlockABI() (int, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch errno {
	case 0:
		return int(abi), nil
	case unix.ENOSYS, unix.EOPNOTSUPP:
		return 0, nil
	}
	return 0, fmt.Errorf("ask for landlock: %w", errno)
}

// LandlockErrata asks the kernel which of landlock(7)'s errata it has mended: bit n-1 is erratum n. Kernels before 6.15 and
// its like among the stable ones cannot tell, which is 0.
func LandlockErrata() int {
	errata, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_ERRATA)
	if errno != 0 {
		return 0
	}
	return int(errata)
}

// Ruleset is a set of rules being made; Restrict enforces it. Close lets go of it.
type Ruleset struct {
	FD    int
	fence Fence
}

// Rules makes a set without rules.
func (f Fence) Rules() (*Ruleset, error) {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: f.FS, Scoped: f.Scoped}
	// Each ABI made the structure longer; the kernel wants none of the fields that it does not know.
	size := unsafe.Sizeof(attr.Handled_access_fs)
	if f.Scoped != 0 {
		size = unsafe.Offsetof(attr.Scoped) + unsafe.Sizeof(attr.Scoped)
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return nil, fmt.Errorf("make landlock rules: %w", errno)
	}
	return &Ruleset{FD: int(fd), fence: f}, nil
}

// Allow gives rights to what a descriptor stands for: to a folder and all below it, or to one file. Pipes, sockets and
// the like are nothing that Landlock handles.
func (r *Ruleset) Allow(fd int, access uint64) error {
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(r.FD), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 && !errors.Is(errno, unix.EBADFD) {
		return fmt.Errorf("add landlock rule: %w", errno)
	}
	return nil
}

// AllowAll gives all rights to a folder and what lies below it.
func (r *Ruleset) AllowAll(fd int) error { return r.Allow(fd, r.fence.FS) }

// Restrict puts the calling thread, and all that it will fork, behind the rules for ever. It needs no_new_privs or
// CAP_SYS_ADMIN.
func (r *Ruleset) Restrict() error {
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(r.FD), 0, 0); errno != 0 {
		return fmt.Errorf("enforce landlock rules: %w", errno)
	}
	return nil
}

// Close ends the making; what has been restricted stays so.
func (r *Ruleset) Close() { unix.Close(r.FD) }
