package userns

import (
	"strings"
	"syscall"
	"testing"
)

func TestClassify(t *testing.T) {
	for name, c := range map[string]struct {
		facts
		cause Cause
		says  string // part of the message or of the remedy
	}{
		"kernel without":                {facts{step: StepClone, errno: syscall.EINVAL}, CauseNoKernel, "CONFIG_USER_NS"},
		"Debian's switch":               {facts{step: StepClone, errno: syscall.EPERM, cloneSwitch: "0", kernelHas: true}, CauseCloneOff, "sudo sysctl -w kernel.unprivileged_userns_clone=1"},
		"the switch does not bind root": {facts{step: StepClone, errno: syscall.EPERM, cloneSwitch: "0", kernelHas: true, root: true, filtered: true}, CauseSeccomp, "seccomp"},
		"none allowed":                  {facts{step: StepClone, errno: syscall.ENOSPC, maxUserNS: "0", kernelHas: true}, CauseMaxZero, "sudo sysctl -w user.max_user_namespaces="},
		"used up":                       {facts{step: StepClone, errno: syscall.ENOSPC, maxUserNS: "10", kernelHas: true}, CauseExhausted, "user.max_user_namespaces is 10"},
		"too deep, old kernels":         {facts{step: StepClone, errno: syscall.EUSERS, maxUserNS: "1000", kernelHas: true}, CauseExhausted, "32 deep"},
		"Ubuntu, no clone":              {facts{step: StepClone, errno: syscall.EACCES, armor: "1", kernelHas: true}, CauseAppArmor, "whisk doctor --apparmor-profile | sudo tee /etc/apparmor.d/whisk"},
		"Ubuntu, no rights":             {facts{step: StepPrivilege, errno: syscall.EPERM, armor: "1", kernelHas: true}, CauseAppArmor, "apparmor_restrict_unprivileged_userns is 1"},
		"Ubuntu, lifted":                {facts{step: StepPrivilege, errno: syscall.EPERM, armor: "0", kernelHas: true}, CauseOther, "withholds the rights"},
		"in a container":                {facts{step: StepClone, errno: syscall.EPERM, filtered: true, kernelHas: true}, CauseSeccomp, "--security-opt seccomp=unconfined"},
		"in a container, no mounts":     {facts{step: StepPrivilege, errno: syscall.EACCES, profile: "docker-default (enforce)", filtered: true, kernelHas: true}, CauseAppArmor, "profile docker-default of this process"},
		"unconfined is no profile":      {facts{step: StepClone, errno: syscall.EPERM, profile: "unconfined", kernelHas: true}, CauseOther, "refuses a user namespace"},
		"in a chroot":                   {facts{step: StepClone, errno: syscall.EPERM, chrooted: true, kernelHas: true}, CauseChroot, "systemd-nspawn"},
		"own id unmapped":               {facts{step: StepClone, errno: syscall.EPERM, unmappedSelf: true, kernelHas: true}, CauseOther, "own id is not mapped"},
		"map refused":                   {facts{step: StepMap, errno: syscall.EPERM, kernelHas: true}, CauseOther, "refuses the id map"},
	} {
		got := classify(c.facts)
		if got.Cause != c.cause || !strings.Contains(got.Error()+"\n"+got.Hint(), c.says) {
			t.Errorf("%s: classify = %s: %v (hint: %s)\nwant %s: %q", name, got.Cause, got, got.Hint(), c.cause, c.says)
		}
	}
}
