package rights

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// CheckSeccomp reports whether this kernel takes filters: nil, or why not. seccomp(2), SECCOMP_GET_ACTION_AVAIL.
func CheckSeccomp() error {
	action := uint32(unix.SECCOMP_RET_ERRNO)
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action))); errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}
