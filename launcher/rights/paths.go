package rights

// masked is what the container world hides (moby's daemon/pkg/oci defaults): files that tell of the host, or
// whose measurements give secrets away.
func masked() []string {
	return []string{
		"/proc/acpi",
		"/proc/asound",
		"/proc/interrupts", // keystroke timing, GHSA-6fw5-f8r9-fgfm
		"/proc/kcore",
		"/proc/keys",
		"/proc/latency_stats",
		"/proc/sched_debug",
		"/proc/scsi",
		"/proc/timer_list",
		"/proc/timer_stats",
		"/sys/devices/virtual/powercap", // power as a side channel, GHSA-jq35-85cj-fj4p
		"/sys/firmware",
	}
}

// readOnly is what may be read and steers the kernel when written.
func readOnly() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
