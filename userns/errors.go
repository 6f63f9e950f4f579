package userns

// Cause names what stands between this process and a user namespace.
type Cause string

// The causes.
const (
	CauseNoKernel  Cause = "no-kernel-support" // built without CONFIG_USER_NS
	CauseCloneOff  Cause = "clone-off"         // kernel.unprivileged_userns_clone=0 (Debian, Ubuntu and Arch kernels)
	CauseMaxZero   Cause = "max-zero"          // user.max_user_namespaces=0
	CauseExhausted Cause = "exhausted"         // so many namespaces exist, or so deep, that no more fit
	CauseAppArmor  Cause = "apparmor"          // kernel.apparmor_restrict_unprivileged_userns=1, or a profile
	CauseSeccomp   Cause = "seccomp"           // a filter refuses, as in another container
	CauseChroot    Cause = "chroot"            // clone(2): not from a chroot
	CauseNoRange   Cause = "no-range"          // no entry in subuid(5) or subgid(5)
	// A directory service that nsswitch.conf(5) names for sub-ids: it answers that there is none, or not at all.
	CauseDirectoryNoRange Cause = "directory-no-range"
	CauseDirectorySilent  Cause = "directory-silent"
	CauseRangeTooSmall    Cause = "range-too-small"  // fewer than 65536 ids
	CauseHelperMissing    Cause = "helper-missing"   // no newuidmap or newgidmap
	CauseHelperPowerless  Cause = "helper-powerless" // neither setuid nor file capabilities, or without effect here
	CauseHelperRefused    Cause = "helper-refused"   // it ran, and said no
	CauseOther            Cause = "other"            // the kernel's word is all there is
)

// Error is a machine that does not let whisk have its user namespace. It is one line, and it has a hint.
type Error struct {
	Cause   Cause
	Message string // lower case, names the file or sysctl
	Remedy  string // the exact command, or empty
	Err     error  // the kernel's answer; may be nil
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Message
	}
	return e.Message + ": " + e.Err.Error()
}

// Hint is the command that mends it, or empty when none is known.
func (e *Error) Hint() string { return e.Remedy }

// Unwrap gives the kernel's answer.
func (e *Error) Unwrap() error { return e.Err }
