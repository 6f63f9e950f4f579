package birth

// What package syscall lacks, from the kernel's uapi headers; golang.org/x/sys/unix would have this package initialised late.
const (
	sysOpenTree     = 428
	sysMountSetattr = 442

	openTreeClone   = 0x1 // and O_CLOEXEC
	atEmptyPath     = 0x1000
	atFDCWD         = ^uintptr(99)
	attrReadOnly    = 0x1
	attrNoSUID      = 0x2
	attrNoDev       = 0x4
	dupCloexec      = 1030 // F_DUPFD_CLOEXEC
	capVersion3     = 0x20080522
	setPdeathsig    = 1
	setTimerslack   = 29
	capbsetRead     = 23
	capAmbient      = 47
	capAmbientRaise = 2
	limitProcesses  = 6 // RLIMIT_NPROC
)

// mountAttr is struct mount_attr, mount_setattr(2).
type mountAttr struct{ set, clear, propagation, userns uint64 }

// capHeader and capData are those of capset(2).
type (
	capHeader struct {
		version uint32
		pid     int32
	}
	capData struct{ effective, permitted, inheritable uint32 }
)
