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
	ABI    int    // of the kernel; 0: it has no Landlock
	FS     uint64 // LANDLOCK_ACCESS_FS_*
	Scoped uint64 // LANDLOCK_SCOPE_*
}

// fileAccess are the rights that a rule on a single file may give.
const fileAccess = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
	unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

// PlanFence handles all access to files that the ABI knows of, and abstract sockets. A rule with all of FS on the root
// of a sandbox then allows what lies below it, mounts included, and nothing else.
//
// Signals are not scoped: process 1 is outside of the fence, and the app must be able to end its sandbox with kill 1.
// That no process outside has a number inside is the pid namespace's work.
func PlanFence(abi int) Fence {
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
	}
	return f
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
