package userns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/mend"
)

// Step is where the kernel said no.
type Step string

// The steps.
const (
	StepClone     Step = "clone"     // making the namespace
	StepMap       Step = "map"       // writing its maps
	StepPrivilege Step = "privilege" // using the rights it should give
)

// Probe makes a user and a mount namespace in a child that ends at once, and uses a right in it. It says what stands
// in the way as an *Error, nil if nothing does. It takes about a millisecond; Start needs no Probe before it.
func Probe() error {
	if f := Try(); f != nil {
		return f.Explain(mend.Here())
	}
	return nil
}

// Try is Probe that gives the facts of a refusal, from which the cause is found; nil if nothing stands in the way.
func Try() *Facts {
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
		return gatherFacts(StepClone, err)
	}
	if err := try(&syscall.SysProcAttr{Cloneflags: flags, Chroot: "/"}); err != nil {
		return gatherFacts(StepPrivilege, fmt.Errorf("chroot: %w", err))
	}
	return nil
}

// Facts are what the cause of a refusal is found from.
type Facts struct {
	Step  Step          `json:"step"`
	Errno syscall.Errno `json:"errno"`
	Root  bool          `json:"root,omitempty"` // euid 0
	// Sysctls, empty where the kernel does not have them.
	CloneSwitch string `json:"clone_switch,omitempty"` // kernel.unprivileged_userns_clone
	MaxUserNS   string `json:"max_user_ns,omitempty"`  // user.max_user_namespaces
	Restricted  string `json:"restricted,omitempty"`   // kernel.apparmor_restrict_unprivileged_userns

	Profile      string `json:"profile,omitempty"`       // AppArmor profile of this process: "docker-default (enforce)"
	ProfileFile  string `json:"profile_file,omitempty"`  // where it is written, if it is one of this machine's
	Filtered     bool   `json:"filtered,omitempty"`      // under a seccomp filter
	Chrooted     bool   `json:"chrooted,omitempty"`      // the root directory is not the root of a mount
	KernelHas    bool   `json:"kernel_has,omitempty"`    // /proc/self/ns/user is there, or no /proc is to look at
	UnmappedSelf bool   `json:"unmapped_self,omitempty"` // this process's own id has no meaning in its namespace
	Exe          string `json:"exe,omitempty"`           // whisk's own file

	err error
}

// diagnose finds the cause of a refusal.
func diagnose(at Step, err error) error { return gatherFacts(at, err).Explain(mend.Here()) }

// Explain names the cause, with the remedy as this distribution words it.
func (f Facts) Explain(d mend.Distro) *Error {
	found := classify(f, d)
	found.Err = f.err
	if found.Err == nil && f.Errno != 0 {
		found.Err = f.Errno
	}
	return found
}

// gatherFacts looks round after a refusal.
func gatherFacts(at Step, err error) *Facts {
	f := Facts{Step: at, Root: os.Geteuid() == 0, err: err}
	errors.As(err, &f.Errno)
	f.Profile = profile()
	f.Read(os.DirFS("/"))
	f.Exe, _ = os.Readlink("/proc/self/exe")
	mode, e := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	f.Filtered = e == nil && mode == 2
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, "/", 0, 0, &st) == nil && st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		f.Chrooted = st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0
	}
	_, noProc := os.Stat("/proc/self/ns")
	// The link, not what it leads to: that has no path, and a profile of AppArmor's may refuse it for that.
	_, e = os.Lstat("/proc/self/ns/user")
	f.KernelHas = !errors.Is(e, fs.ErrNotExist) || noProc != nil
	if own, e := os.ReadFile("/proc/self/uid_map"); e == nil && at == StepClone {
		_, ok := outside(parseOwn(string(own)), uint32(os.Geteuid()))
		f.UnmappedSelf = !ok
	}
	return &f
}

// Read takes from a machine's files what decides: sysctls, and where the profile of this process is written.
func (f *Facts) Read(root fs.FS) {
	f.ProfileFile = profileFile(root, f.confinedBy())
	f.CloneSwitch = sysctl(root, "kernel/unprivileged_userns_clone")
	f.MaxUserNS = sysctl(root, "user/max_user_namespaces")
	f.Restricted = sysctl(root, "kernel/apparmor_restrict_unprivileged_userns")
}

func sysctl(root fs.FS, name string) string {
	text, err := fs.ReadFile(root, "proc/sys/"+name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// confinedBy is the name of an AppArmor profile that is enforced on this process, or empty. Inside of a user namespace
// that AppArmor restricts, a process has one that no file need have.
func (f *Facts) confinedBy() string {
	name, ok := strings.CutSuffix(f.Profile, " (enforce)")
	if !ok || name == "unprivileged_userns" {
		return ""
	}
	return name
}

// profileFile is the file in /etc/apparmor.d that a profile is written in, by its name: apparmor.d(5) has one begin
// with "profile NAME", or with the path that it is for and that is its name then.
func profileFile(root fs.FS, name string) string {
	if name == "" {
		return ""
	}
	const dir = "etc/apparmor.d"
	files, err := fs.ReadDir(root, dir)
	if err != nil {
		return ""
	}
	for _, file := range files {
		text, err := fs.ReadFile(root, dir+"/"+file.Name())
		if err != nil {
			continue // a folder, or root's alone
		}
		for line := range strings.Lines(string(text)) {
			words := strings.Fields(line)
			if len(words) > 1 && words[0] == "profile" {
				words = words[1:]
			} else if !strings.HasPrefix(strings.TrimLeft(line, `"`), "/") {
				continue
			}
			if len(words) > 1 && strings.Trim(words[0], `"`) == name && strings.HasSuffix(strings.TrimSpace(line), "{") {
				return "/" + dir + "/" + file.Name()
			}
		}
	}
	return ""
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
func classify(f Facts, d mend.Distro) *Error {
	denied := f.Errno == syscall.EPERM || f.Errno == syscall.EACCES
	confined := f.confinedBy()
	switch {
	case f.Step == StepClone && (!f.KernelHas || f.Errno == syscall.EINVAL || f.Errno == syscall.ENOSYS):
		return &Error{Cause: CauseNoKernel, Message: "this kernel has no user namespaces (CONFIG_USER_NS)"}
	case f.Step == StepClone && denied && f.CloneSwitch == "0" && !f.Root:
		return &Error{Cause: CauseCloneOff, Message: "user namespaces are off: kernel.unprivileged_userns_clone is 0", Remedy: d.Sysctl("kernel.unprivileged_userns_clone", "1")}
	case f.Step == StepClone && f.MaxUserNS == "0":
		return &Error{Cause: CauseMaxZero, Message: "user namespaces are off: user.max_user_namespaces is 0", Remedy: d.Sysctl("user.max_user_namespaces", "28633")}
	case f.Step == StepClone && (f.Errno == syscall.ENOSPC || f.Errno == syscall.EUSERS):
		return &Error{Cause: CauseExhausted, Message: fmt.Sprintf("no more namespaces fit: user.max_user_namespaces is %s, and namespaces nest 32 deep at most", f.MaxUserNS), Remedy: d.Sysctl("user.max_user_namespaces", "28633") + " (and the other user.max_*_namespaces)"}
	case denied && f.ProfileFile != "":
		return &Error{Cause: CauseAppArmor, Message: fmt.Sprintf("the AppArmor profile %s (%s) of this process withholds the rights of user namespaces", confined, f.ProfileFile), Remedy: d.LiftProfile(f.ProfileFile)}
	case denied && f.Restricted == "1" && !f.Root:
		return &Error{Cause: CauseAppArmor, Message: "AppArmor withholds the rights of user namespaces: kernel.apparmor_restrict_unprivileged_userns is 1", Remedy: d.Profile(f.Exe)}
	case f.Step == StepClone && denied && f.Filtered:
		return &Error{Cause: CauseSeccomp, Message: "a seccomp filter refuses user namespaces, as container engines set one", Remedy: "start the outer container with --security-opt seccomp=unconfined"}
	case f.Step == StepClone && denied && f.Chrooted:
		return &Error{Cause: CauseChroot, Message: "user namespaces cannot be made from within a chroot", Remedy: "enter with a mount namespace: sudo unshare --mount --root=DIR, or systemd-nspawn -D DIR"}
	case denied && confined != "":
		return &Error{Cause: CauseAppArmor, Message: fmt.Sprintf("the AppArmor profile %s of this process withholds the rights of user namespaces", confined), Remedy: "start the outer container with --security-opt apparmor=unconfined"}
	case denied && f.Filtered:
		return &Error{Cause: CauseSeccomp, Message: "a seccomp filter withholds the rights of user namespaces, as container engines set one", Remedy: "start the outer container with --security-opt seccomp=unconfined"}
	case f.Step == StepClone && denied && f.UnmappedSelf:
		return &Error{Cause: CauseOther, Message: "this process's own id is not mapped in the namespace that it is in"}
	}
	return &Error{Cause: CauseOther, Message: map[Step]string{
		StepClone:     "the kernel refuses a user namespace",
		StepMap:       "the kernel refuses the id map",
		StepPrivilege: "the kernel withholds the rights of the user namespace",
	}[f.Step]}
}
