package userns

import (
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/whisk-sandbox/whisk/remedy"
)

// Probe makes a user and a mount namespace in a child that ends at once, and uses a right in it. It says what stands
// in the way as an *Error, nil if nothing does. It takes about a millisecond; Start needs no Probe before it.
func Probe() error {
	if r := Try(); r != nil {
		return Here().Explain(r)
	}
	return nil
}

// Try is Probe without the search for a cause: the kernel's word, nil if it says yes.
func Try() *Refusal {
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
		return &Refusal{StepClone, err}
	}
	if err := try(&syscall.SysProcAttr{Cloneflags: flags, Chroot: "/"}); err != nil {
		return &Refusal{StepPrivilege, fmt.Errorf("chroot: %w", err)}
	}
	return nil
}

// facts are what the cause is found from.
type facts struct {
	step   Step
	errno  syscall.Errno
	root   bool // euid 0
	system remedy.System
	binary string
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

// diagnose finds the cause of a refusal on this machine.
func diagnose(at Step, err error) error { return Here().Explain(&Refusal{at, err}) }

// Sysctl is a kernel setting by its path below /proc/sys, trimmed; empty where the kernel does not have it.
func Sysctl(root fs.FS, name string) string {
	text, err := fs.ReadFile(root, "proc/sys/"+name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func profile(root fs.FS) string {
	for _, path := range []string{"proc/self/attr/apparmor/current", "proc/self/attr/current"} {
		if text, err := fs.ReadFile(root, path); err == nil {
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
	case f.step == StepClone && (!f.kernelHas || f.errno == syscall.EINVAL || f.errno == syscall.ENOSYS):
		return &Error{Cause: CauseNoKernel, Message: "this kernel has no user namespaces (CONFIG_USER_NS)"}
	case f.step == StepClone && denied && f.cloneSwitch == "0" && !f.root:
		return &Error{Cause: CauseCloneOff, Message: "user namespaces are off: kernel.unprivileged_userns_clone is 0", Fix: f.system.Sysctl("kernel.unprivileged_userns_clone", "1")}
	case f.step == StepClone && f.maxUserNS == "0":
		return &Error{Cause: CauseMaxZero, Message: "user namespaces are off: user.max_user_namespaces is 0", Fix: f.system.Sysctl("user.max_user_namespaces", "28633")}
	case f.step == StepClone && (f.errno == syscall.ENOSPC || f.errno == syscall.EUSERS):
		return &Error{Cause: CauseExhausted, Message: fmt.Sprintf("no more namespaces fit: user.max_user_namespaces is %s, and namespaces nest 32 deep at most", f.maxUserNS), Fix: f.system.Sysctl("user.max_user_namespaces", "28633")}
	case denied && f.armor == "1" && !f.root:
		return &Error{Cause: CauseAppArmor, Message: "AppArmor withholds the rights of user namespaces: kernel.apparmor_restrict_unprivileged_userns is 1", Fix: f.system.AppArmor(f.binary)}
	case f.step == StepClone && denied && f.filtered:
		return &Error{Cause: CauseSeccomp, Message: "a seccomp filter refuses user namespaces, as container engines set one", Fix: remedy.Fix{Line: "start the outer container with --security-opt seccomp=unconfined"}}
	case f.step == StepClone && denied && f.chrooted:
		return &Error{Cause: CauseChroot, Message: "user namespaces cannot be made from within a chroot", Fix: remedy.Fix{Line: "enter with a mount namespace: sudo unshare --mount --root=DIR, or systemd-nspawn -D DIR"}}
	case denied && confined:
		return &Error{Cause: CauseAppArmor, Message: fmt.Sprintf("the AppArmor profile %s of this process withholds the rights of user namespaces", strings.TrimSuffix(f.profile, " (enforce)")), Fix: remedy.Fix{Line: "start the outer container with --security-opt apparmor=unconfined"}}
	case denied && f.filtered:
		return &Error{Cause: CauseSeccomp, Message: "a seccomp filter withholds the rights of user namespaces, as container engines set one", Fix: remedy.Fix{Line: "start the outer container with --security-opt seccomp=unconfined"}}
	case f.step == StepClone && denied && f.unmappedSelf:
		return &Error{Cause: CauseOther, Message: "this process's own id is not mapped in the namespace that it is in"}
	}
	return &Error{Cause: CauseOther, Message: map[Step]string{
		StepClone:     "the kernel refuses a user namespace",
		StepMap:       "the kernel refuses the id map",
		StepPrivilege: "the kernel withholds the rights of the user namespace",
	}[f.step]}
}
