package mend

const (
	delegationFile = "/etc/systemd/system/user@.service.d/delegate.conf"
	// delegationText lets each user's systemd give out all controllers, systemd.resource-control(5).
	delegationText = "[Service]\\nDelegate=cpu cpuset io memory pids\\n"

	// UnifiedGroups mounts control groups of version 2 alone, systemd(1).
	UnifiedGroups = "add systemd.unified_cgroup_hierarchy=1 to the kernel's command line and start the machine anew"
	// OwnSystemd gives a login a systemd of its own, pam_systemd(8).
	OwnSystemd = "log in through ssh, a display manager or machinectl shell, not su or sudo; or: loginctl enable-linger"
)

// Delegate has systemd give each login all controllers, from the next login on.
func (d Distro) Delegate() string {
	return d.Root("mkdir -p /etc/systemd/system/user@.service.d") + " && printf '" + delegationText + "' | " + d.Root("tee "+delegationFile) + " >/dev/null && " + d.Root("systemctl daemon-reload")
}

// DelegateAsRoot is Delegate for a shell that is root's.
func DelegateAsRoot() []string {
	return []string{"mkdir -p /etc/systemd/system/user@.service.d", "printf '" + delegationText + "' > " + delegationFile, "systemctl daemon-reload"}
}
