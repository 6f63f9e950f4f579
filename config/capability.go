package config

import (
	"fmt"
	"slices"
	"strings"
)

// capabilityNames are the capabilities of capabilities(7) up to Linux 6.12, in the kernel's order and without CAP_.
const capabilityNames = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE " +
	"NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE " +
	"SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL " +
	"SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"

// ParseCap reads a capability in any case, with or without CAP_, or ALL. It returns the name in upper case without CAP_.
func ParseCap(s string) (string, error) {
	name := strings.TrimPrefix(strings.ToUpper(s), "CAP_")
	known := strings.Fields(capabilityNames)
	if name == "ALL" || slices.Contains(known, name) {
		return name, nil
	}
	if hint := didYouMean(name, known); hint != "" {
		return "", fmt.Errorf("capability %q is not known; %s", clip(s), hint)
	}
	return "", fmt.Errorf("capability %q is not known; want a name of capabilities(7) such as NET_RAW, or ALL", clip(s))
}
