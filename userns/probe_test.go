package userns

import (
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/whisk-sandbox/whisk/mend"
)

func TestClassify(t *testing.T) {
	for name, c := range map[string]struct {
		Facts
		cause Cause
		says  string // part of the message or of the remedy
	}{
		"kernel without":                {Facts{Step: StepClone, Errno: syscall.EINVAL}, CauseNoKernel, "CONFIG_USER_NS"},
		"Debian's switch":               {Facts{Step: StepClone, Errno: syscall.EPERM, CloneSwitch: "0", KernelHas: true}, CauseCloneOff, "sudo sysctl -w kernel.unprivileged_userns_clone=1"},
		"the switch does not bind root": {Facts{Step: StepClone, Errno: syscall.EPERM, CloneSwitch: "0", KernelHas: true, Root: true, Filtered: true}, CauseSeccomp, "seccomp"},
		"none allowed":                  {Facts{Step: StepClone, Errno: syscall.ENOSPC, MaxUserNS: "0", KernelHas: true}, CauseMaxZero, "sudo sysctl -w user.max_user_namespaces="},
		"used up":                       {Facts{Step: StepClone, Errno: syscall.ENOSPC, MaxUserNS: "10", KernelHas: true}, CauseExhausted, "user.max_user_namespaces is 10"},
		"too deep, old kernels":         {Facts{Step: StepClone, Errno: syscall.EUSERS, MaxUserNS: "1000", KernelHas: true}, CauseExhausted, "32 deep"},
		"Ubuntu, no clone":              {Facts{Step: StepClone, Errno: syscall.EACCES, Restricted: "1", KernelHas: true, Exe: "/home/ann/whisk"}, CauseAppArmor, "/home/ann/whisk doctor --apparmor-profile | sudo tee /etc/apparmor.d/home.ann.whisk >/dev/null && sudo apparmor_parser -r"},
		"Ubuntu, no rights":             {Facts{Step: StepPrivilege, Errno: syscall.EPERM, Restricted: "1", KernelHas: true}, CauseAppArmor, "apparmor_restrict_unprivileged_userns is 1"},
		"Ubuntu, lifted":                {Facts{Step: StepPrivilege, Errno: syscall.EPERM, Restricted: "0", KernelHas: true}, CauseOther, "withholds the rights"},
		"in a container":                {Facts{Step: StepClone, Errno: syscall.EPERM, Filtered: true, KernelHas: true}, CauseSeccomp, "--security-opt seccomp=unconfined"},
		"in a container, no mounts":     {Facts{Step: StepPrivilege, Errno: syscall.EACCES, Profile: "docker-default (enforce)", Filtered: true, KernelHas: true}, CauseAppArmor, "profile docker-default of this process"},
		"unconfined is no profile":      {Facts{Step: StepClone, Errno: syscall.EPERM, Profile: "unconfined", KernelHas: true}, CauseOther, "refuses a user namespace"},
		"in a chroot":                   {Facts{Step: StepClone, Errno: syscall.EPERM, Chrooted: true, KernelHas: true}, CauseChroot, "systemd-nspawn"},
		"own id unmapped":               {Facts{Step: StepClone, Errno: syscall.EPERM, UnmappedSelf: true, KernelHas: true}, CauseOther, "own id is not mapped"},
		"map refused":                   {Facts{Step: StepMap, Errno: syscall.EPERM, KernelHas: true}, CauseOther, "refuses the id map"},
	} {
		got := classify(c.Facts, mend.Distro{})
		if got.Cause != c.cause || !strings.Contains(got.Error()+"\n"+got.Hint(), c.says) {
			t.Errorf("%s: classify = %s: %v (hint: %s)\nwant %s: %q", name, got.Cause, got, got.Hint(), c.cause, c.says)
		}
	}
}

func TestFileOfAProfile(t *testing.T) {
	files := fstest.MapFS{
		"etc/apparmor.d/abstractions/base": {Data: []byte("profile denied {\n")},
		"etc/apparmor.d/local-denied":      {Data: []byte("abi <abi/4.0>,\nprofile denied /opt/whisk {\n  allow all,\n}\n")},
		"etc/apparmor.d/opt.whisk":         {Data: []byte("# /opt/a b/whisk {\n\"/opt/whisk2\" flags=(complain) {\n}\n")},
	}
	for profile, want := range map[string]string{
		"denied (enforce)":              "/etc/apparmor.d/local-denied",
		"/opt/whisk2 (enforce)":         "/etc/apparmor.d/opt.whisk",
		"denied (complain)":             "",
		"docker-default (enforce)":      "",
		"unprivileged_userns (enforce)": "",
		"unconfined":                    "",
		"":                              "",
	} {
		f := Facts{Profile: profile}
		if f.Read(files); f.ProfileFile != want {
			t.Errorf("file of %q: %q, want %q", profile, f.ProfileFile, want)
		}
	}
}
