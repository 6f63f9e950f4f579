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
		"kernel without":                {facts{step: stepClone, errno: syscall.EINVAL}, CauseNoKernel, "CONFIG_USER_NS"},
		"Debian's switch":               {facts{step: stepClone, errno: syscall.EPERM, cloneSwitch: "0", kernelHas: true}, CauseCloneOff, "sudo sysctl -w kernel.unprivileged_userns_clone=1"},
		"the switch does not bind root": {facts{step: stepClone, errno: syscall.EPERM, cloneSwitch: "0", kernelHas: true, root: true, filtered: true}, CauseSeccomp, "seccomp"},
		"none allowed":                  {facts{step: stepClone, errno: syscall.ENOSPC, maxUserNS: "0", kernelHas: true}, CauseMaxZero, "sudo sysctl -w user.max_user_namespaces="},
		"used up":                       {facts{step: stepClone, errno: syscall.ENOSPC, maxUserNS: "10", kernelHas: true}, CauseExhausted, "user.max_user_namespaces is 10"},
		"too deep, old kernels":         {facts{step: stepClone, errno: syscall.EUSERS, maxUserNS: "1000", kernelHas: true}, CauseExhausted, "32 deep"},
		"Ubuntu, no clone":              {facts{step: stepClone, errno: syscall.EACCES, armor: "1", kernelHas: true}, CauseAppArmor, "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
		"Ubuntu, no rights":             {facts{step: stepPrivilege, errno: syscall.EPERM, armor: "1", kernelHas: true}, CauseAppArmor, "apparmor_restrict_unprivileged_userns is 1"},
		"Ubuntu, lifted":                {facts{step: stepPrivilege, errno: syscall.EPERM, armor: "0", kernelHas: true}, CauseOther, "withholds the rights"},
		"in a container":                {facts{step: stepClone, errno: syscall.EPERM, filtered: true, kernelHas: true}, CauseSeccomp, "--security-opt seccomp=unconfined"},
		"in a container, no mounts":     {facts{step: stepPrivilege, errno: syscall.EACCES, profile: "docker-default (enforce)", filtered: true, kernelHas: true}, CauseAppArmor, "profile docker-default of this process"},
		"unconfined is no profile":      {facts{step: stepClone, errno: syscall.EPERM, profile: "unconfined", kernelHas: true}, CauseOther, "refuses a user namespace"},
		"in a chroot":                   {facts{step: stepClone, errno: syscall.EPERM, chrooted: true, kernelHas: true}, CauseChroot, "systemd-nspawn"},
		"own id unmapped":               {facts{step: stepClone, errno: syscall.EPERM, unmappedSelf: true, kernelHas: true}, CauseOther, "own id is not mapped"},
		"map refused":                   {facts{step: stepMap, errno: syscall.EPERM, kernelHas: true}, CauseOther, "refuses the id map"},
	} {
		got := classify(c.facts)
		if got.Cause != c.cause || !strings.Contains(got.Error()+"\n"+got.Hint(), c.says) {
			t.Errorf("%s: classify = %s: %v (hint: %s)\nwant %s: %q", name, got.Cause, got, got.Hint(), c.cause, c.says)
		}
	}
}
