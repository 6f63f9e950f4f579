package userns

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// step is where the kernel said no.
type step int

const (
	stepClone     step = iota // making the namespace
	stepMap                   // writing its maps
	stepPrivilege             // using the rights it should give
)

// Probe makes a user and a mount namespace in a child that ends at once, and uses a right in it. It says what stands
// in the way as an *Error, nil if nothing does. It takes about a millisecond; Start needs no Probe before it.
func Probe() error {
	try := func(sys *syscall.SysProcAttr) error {
		// Nothing is ever executed: the last step is certain to fail, with an error that no wall answers
		// with. Any other error is what the child was not allowed to do before.
		_, err := syscall.ForkExec("/dev/null/probe", []string{"probe"}, &syscall.ProcAttr{Sys: sys})
		if err == syscall.ENOTDIR || err == syscall.ENOENT {
			return nil
		}
		return err
	}
	flags := uintptr(syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS)
	if err := try(&syscall.SysProcAttr{Cloneflags: flags}); err != nil {
		return diagnose(stepClone, err)
	}
	if err := try(&syscall.SysProcAttr{Cloneflags: flags, Chroot: "/"}); err != nil {
		return diagnose(stepPrivilege, fmt.Errorf("chroot: %w", err))
	}
	return nil
}

// facts are what the cause is found from.
type facts struct {
	step  step
	errno syscall.Errno
	root  bool // euid 0
	// Sysctls, empty where the kernel does not have them.
	cloneSwitch  string // kernel.unprivileged_userns_clone
	maxUserNS    string // user.max_user_namespaces
	armor        string // kernel.apparmor_restrict_unprivileged_userns
	profile      string // AppArmor profile of this process: "docker-default (enforce)"
	filtered     bool   // under a seccomp filter
	chrooted     bool   // the root directory is not the root of a mount
	kernelHas    bool   // /proc/self/ns/user is there, or no /proc is to look at
	unmappedSelf bool   // this process's own id has no meaning in its namespace
}

// diagnose finds the cause of a refusal.
func diagnose(at step, err error) error {
	f := facts{step: at, root: os.Geteuid() == 0}
	errors.As(err, &f.errno)
	f.cloneSwitch = sysctl("kernel/unprivileged_userns_clone")
	f.maxUserNS = sysctl("user/max_user_namespaces")
	f.armor = sysctl("kernel/apparmor_restrict_unprivileged_userns")
	f.profile = profile()
	mode, e := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	f.filtered = e == nil && mode == 2
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, "/", 0, 0, &st) == nil && st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		f.chrooted = st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0
	}
	_, noProc := os.Stat("/proc/self/ns")
	_, e = os.Stat("/proc/self/ns/user")
	f.kernelHas = e == nil || noProc != nil
	if own, e := os.ReadFile("/proc/self/uid_map"); e == nil && at == stepClone {
		_, ok := outside(parseOwn(string(own)), uint32(os.Geteuid()))
		f.unmappedSelf = !ok
	}
	found := classify(f)
	found.Err = err
	return found
}

func sysctl(name string) string {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func profile() string {
	for _, path := range []string{"/proc/self/attr/apparmor/current", "/proc/self/attr/current"} {
		if text, err := os.ReadFile(path); err == nil {
			return strings.TrimRight(string(text), "\n\x00")
		}
	}
	return ""
}

// classify names the cause. The order matters: a switch that is off explains a refusal better than a filter that
// may or may not have been asked.
func classify(f facts) *Error {
	denied := f.errno == syscall.EPERM || f.errno == syscall.EACCES
	confined := strings.HasSuffix(f.profile, "(enforce)")
	switch {
	case f.step == stepClone && (!f.kernelHas || f.errno == syscall.EINVAL || f.errno == syscall.ENOSYS):
		return &Error{Cause: CauseNoKernel, Message: "this kernel has no user namespaces (CONFIG_USER_NS)"}
	case f.step == stepClone && denied && f.cloneSwitch == "0" && !f.root:
		return &Error{Cause: CauseCloneOff, Message: "user namespaces are off: kernel.unprivileged_userns_clone is 0", Remedy: "sudo sysctl -w kernel.unprivileged_userns_clone=1"}
	case f.step == stepClone && f.maxUserNS == "0":
		return &Error{Cause: CauseMaxZero, Message: "user namespaces are off: user.max_user_namespaces is 0", Remedy: "sudo sysctl -w user.max_user_namespaces=28633"}
	case f.step == stepClone && (f.errno == syscall.ENOSPC || f.errno == syscall.EUSERS):
		return &Error{Cause: CauseExhausted, Message: fmt.Sprintf("no more namespaces fit: user.max_user_namespaces is %s, and namespaces nest 32 deep at most", f.maxUserNS), Remedy: "sudo sysctl -w user.max_user_namespaces=28633 (and the other user.max_*_namespaces)"}
	case denied && f.armor == "1" && !f.root:
		return &Error{Cause: CauseAppArmor, Message: "AppArmor withholds the rights of user namespaces: kernel.apparmor_restrict_unprivileged_userns is 1", Remedy: "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"}
	case f.step == stepClone && denied && f.filtered:
		return &Error{Cause: CauseSeccomp, Message: "a seccomp filter refuses user namespaces, as container engines set one", Remedy: "start the outer container with --security-opt seccomp=unconfined"}
	case f.step == stepClone && denied && f.chrooted:
		return &Error{Cause: CauseChroot, Message: "user namespaces cannot be made from within a chroot", Remedy: "enter with a mount namespace: sudo unshare --mount --root=DIR, or systemd-nspawn -D DIR"}
	case denied && confined:
		return &Error{Cause: CauseAppArmor, Message: fmt.Sprintf("the AppArmor profile %s of this process withholds the rights of user namespaces", strings.TrimSuffix(f.profile, " (enforce)")), Remedy: "start the outer container with --security-opt apparmor=unconfined"}
	case denied && f.filtered:
		return &Error{Cause: CauseSeccomp, Message: "a seccomp filter withholds the rights of user namespaces, as container engines set one", Remedy: "start the outer container with --security-opt seccomp=unconfined"}
	case f.step == stepClone && denied && f.unmappedSelf:
		return &Error{Cause: CauseOther, Message: "this process's own id is not mapped in the namespace that it is in"}
	}
	return &Error{Cause: CauseOther, Message: map[step]string{
		stepClone:     "the kernel refuses a user namespace",
		stepMap:       "the kernel refuses the id map",
		stepPrivilege: "the kernel withholds the rights of the user namespace",
	}[f.step]}
}
