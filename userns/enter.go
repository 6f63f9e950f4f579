package userns

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/userns/birth"
)

// Enter is the first thing a stage does: it waits until the parent has mapped the namespace, and makes this process
// root in it: ids 0, no supplementary groups (one id: those of the user stay, since nobody may drop them), every
// capability, none of them inheritable or ambient; mounts of the host go on to arrive here, and none of ours go
// there. All threads are changed. A parent that died and a machine that withholds the rights are errors.
func Enter() error {
	single, err := birth.Await()
	if err != nil {
		return fmt.Errorf("entering the user namespace: %w", err)
	}
	if !single {
		if err := syscall.Setgroups(nil); err != nil {
			return diagnose(StepPrivilege, fmt.Errorf("setgroups: %w", err))
		}
	}
	// These are no-ops unless the user ran a setuid or setgid whisk; each stops all threads, so ask first.
	if r, e, s := unix.Getresgid(); r != 0 || e != 0 || s != 0 {
		if err := syscall.Setresgid(0, 0, 0); err != nil {
			return diagnose(StepPrivilege, fmt.Errorf("setresgid: %w", err))
		}
	}
	if r, e, s := unix.Getresuid(); r != 0 || e != 0 || s != 0 {
		if err := syscall.Setresuid(0, 0, 0); err != nil {
			return diagnose(StepPrivilege, fmt.Errorf("setresuid: %w", err))
		}
	}
	if err := keepToSelf(); err != nil {
		return diagnose(StepPrivilege, fmt.Errorf("capset: %w", err))
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return diagnose(StepPrivilege, fmt.Errorf("making mounts private: %w", err))
	}
	return nil
}

// keepToSelf empties the inheritable set of all threads, and with it the ambient set, which is part of it
// (capabilities(7)): what this process executes as another user gets nothing.
func keepToSelf() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno == syscall.ENOTSUP {
		// A binary with cgo, which whisk is only in tests under the race detector: Go does not know all
		// threads there. Threads started from this one from now on are changed, too.
		return unix.Capset(&header, &data[0])
	}
	if errno != 0 {
		return errno
	}
	return nil
}
