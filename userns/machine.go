package userns

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/remedy"
)

// Machine is what a map is planned and a refusal is explained from: nothing else of the host is asked. Here is the real
// one; a test makes its own.
type Machine struct {
	Root       fs.FS                                        // "/": etc/subuid, etc/os-release, proc/sys, proc/self
	Helper     func(name string) Helper                     // finds newuidmap or newgidmap; nil: neither is there
	ranges     func(u User) (uids, gids []entry, err error) // asks a directory service; nil: there is none
	UID        uint32                                       // effective
	NoNewPrivs bool                                         // exec gives no privilege any more, prctl(2)
	Filtered   bool                                         // under a seccomp filter
	Chrooted   bool                                         // the root directory is not the root of a mount
	Binary     string                                       // whisk's own path, for an AppArmor profile
}

// Here is this process's machine.
func Here() Machine {
	m := Machine{Root: os.DirFS("/"), Helper: look, ranges: getsubids, UID: uint32(os.Geteuid()), NoNewPrivs: noNewPrivs()}
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	m.Filtered = err == nil && mode == 2
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, "/", 0, 0, &st) == nil && st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		m.Chrooted = st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0
	}
	if path, err := os.Executable(); err == nil {
		m.Binary = path
	}
	return m
}

func (m Machine) system() remedy.System { return remedy.Read(m.Root) }

// Refusal is the kernel's word against a namespace, before it is explained.
type Refusal struct {
	Step Step
	Err  error
}

// Step is where the kernel said no.
type Step int

// The steps.
const (
	StepClone     Step = iota // making the namespace
	StepMap                   // writing its maps
	StepPrivilege             // using the rights it should give
)

// Explain finds the cause of a refusal and what mends it; nil of nil.
func (m Machine) Explain(r *Refusal) *Error {
	if r == nil {
		return nil
	}
	f := facts{
		step: r.Step, root: m.UID == 0, system: m.system(), binary: m.Binary, filtered: m.Filtered, chrooted: m.Chrooted,
		cloneSwitch: Sysctl(m.Root, "kernel/unprivileged_userns_clone"),
		maxUserNS:   Sysctl(m.Root, "user/max_user_namespaces"),
		armor:       Sysctl(m.Root, "kernel/apparmor_restrict_unprivileged_userns"),
		profile:     profile(m.Root),
	}
	var errno syscall.Errno
	if errors.As(r.Err, &errno) {
		f.errno = errno
	}
	_, noProc := fs.Stat(m.Root, "proc/self/ns")
	_, err := fs.Stat(m.Root, "proc/self/ns/user")
	f.kernelHas = err == nil || noProc != nil
	if own, err := fs.ReadFile(m.Root, "proc/self/uid_map"); err == nil && r.Step == StepClone {
		_, ok := outside(parseOwn(string(own)), m.UID)
		f.unmappedSelf = !ok
	}
	found := classify(f)
	found.Err = r.Err
	return found
}
