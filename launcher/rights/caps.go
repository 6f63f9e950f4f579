package rights

import (
	"fmt"
	"strings"
)

// names by capability number, linux/capability.h.
const names = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE " +
	"NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE " +
	"SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE " +
	"AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF " +
	"CHECKPOINT_RESTORE"

// DefaultCaps is the set that Docker and podman's Docker mode give, as a bit set: CHOWN, DAC_OVERRIDE, FOWNER, FSETID,
// KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP. All of them
// count in the sandbox's own namespaces only.
const DefaultCaps uint64 = 1<<0 | 1<<1 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<13 | 1<<18 | 1<<27 | 1<<29 | 1<<31

// CapNames lists a bit set as CAP_CHOWN and so on, in the order of the numbers; without a name, as the number.
func CapNames(caps uint64) []string {
	known := strings.Fields(names)
	var out []string
	for c := range 64 {
		switch {
		case caps&(1<<c) == 0:
		case c < len(known):
			out = append(out, "CAP_"+known[c])
		default:
			out = append(out, fmt.Sprintf("CAP_%d", c))
		}
	}
	return out
}

// capSet adds to and drops from the default set. ALL is every capability of this kernel; dropping ALL leaves what
// is added by name.
func capSet(add, drop []string, last uint) (uint64, error) {
	known := strings.Fields(names)
	every := uint64(1)<<(min(last, 63)+1) - 1
	if last >= 63 {
		every = ^uint64(0)
	}
	parse := func(words []string) (bits uint64, all bool, err error) {
		for _, word := range words {
			name := strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(word)), "CAP_")
			if name == "ALL" {
				all = true
				continue
			}
			found := false
			for c, k := range known {
				if k != name {
					continue
				}
				if uint(c) > last {
					return 0, false, fmt.Errorf("capability %q: this kernel does not have it", word)
				}
				bits, found = bits|1<<c, true
			}
			if !found {
				return 0, false, fmt.Errorf("unknown capability %q: capabilities(7) lists them", word)
			}
		}
		return bits, all, nil
	}
	added, addAll, err := parse(add)
	if err != nil {
		return 0, err
	}
	dropped, dropAll, err := parse(drop)
	if err != nil {
		return 0, err
	}
	switch {
	case addAll && dropAll:
		return 0, fmt.Errorf("capabilities: ALL cannot be both added and dropped")
	case addAll:
		return every&^dropped | added, nil
	case dropAll:
		return added, nil
	}
	return DefaultCaps&every&^dropped | added, nil
}
