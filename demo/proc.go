package demo

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// IDRange is one line of an id map, user_namespaces(7).
type IDRange struct {
	Inside  uint32 `json:"inside"`  // first id in the sandbox
	Outside uint32 `json:"outside"` // first id on the host
	Count   uint32 `json:"count"`   // ids in the range, at least 1
}

func parseIDMap(text []byte) ([]IDRange, error) {
	var all []IDRange
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return nil, fmt.Errorf("line %q: want three numbers", strings.TrimSpace(line))
		}
		var n [3]uint32
		for i, f := range fields {
			v, err := strconv.ParseUint(f, 10, 32)
			if err != nil {
				return nil, err
			}
			n[i] = uint32(v)
		}
		all = append(all, IDRange{Inside: n[0], Outside: n[1], Count: n[2]})
	}
	return all, nil
}

// Mount is one line of mountinfo, proc_pid_mountinfo(5), shortened to what a reader of the page wants to know.
type Mount struct {
	Point    string `json:"point"`             // where, seen from the sandbox's root
	Type     string `json:"type"`              // of file system
	Source   string `json:"source"`            // the device's word for itself
	Root     string `json:"root,omitempty"`    // the part of the file system that is mounted, if not all of it
	ReadOnly bool   `json:"read_only"`         // either the mount or the whole file system is
	Options  string `json:"options,omitempty"` // of nosuid, nodev, noexec those that are set, by comma
}

func parseMounts(text []byte) ([]Mount, error) {
	var all []Mount
	for line := range strings.Lines(string(text)) {
		// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 3 {
			return nil, fmt.Errorf("line %q: too short", strings.TrimSpace(line))
		}
		m := Mount{Point: unescape(left[4]), Type: right[0], Source: unescape(right[1])}
		if root := unescape(left[3]); root != "/" {
			m.Root = root
		}
		var set []string
		for opt := range strings.SplitSeq(left[5], ",") {
			switch opt {
			case "ro":
				m.ReadOnly = true
			case "nosuid", "nodev", "noexec":
				set = append(set, opt)
			}
		}
		m.Options = strings.Join(set, ",")
		for opt := range strings.SplitSeq(right[2], ",") {
			m.ReadOnly = m.ReadOnly || opt == "ro"
		}
		all = append(all, m)
	}
	return all, nil
}

// unescape undoes the kernel's \ooo for blank, tab, line feed and backslash (seq_path in fs/seq_file.c).
func unescape(s string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 || len(s) < i+4 {
			break
		}
		b.WriteString(s[:i])
		if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
			b.WriteByte(byte(v))
			s = s[i+4:]
		} else {
			b.WriteByte('\\')
			s = s[i+1:]
		}
	}
	return b.String() + s
}

// Rights are the lines of /proc/self/status that bound what a process may do, proc_pid_status(5).
type Rights struct {
	UID            uint32   `json:"uid"` // effective, as the sandbox counts
	GID            uint32   `json:"gid"`
	Effective      []string `json:"effective"`       // capabilities(7) without CAP_, or a bare number if unknown
	Bounding       []string `json:"bounding"`        // what no program in the sandbox can ever get back
	Ambient        []string `json:"ambient"`         // what an ordinary program would inherit
	NoNewPrivs     bool     `json:"no_new_privs"`    // setuid programs raise nothing
	Seccomp        string   `json:"seccomp"`         // "off", "strict" or "filter"
	SeccompFilters int      `json:"seccomp_filters"` // how many filters; 0 before kernel 5.9, which does not tell
}

func parseRights(text []byte) (Rights, error) {
	var r Rights
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		seen[key] = true
		value = strings.TrimSpace(value)
		var err error
		switch key {
		case "Uid":
			r.UID, err = effectiveID(value)
		case "Gid":
			r.GID, err = effectiveID(value)
		case "CapEff":
			r.Effective, err = parseCapabilities(value)
		case "CapBnd":
			r.Bounding, err = parseCapabilities(value)
		case "CapAmb":
			r.Ambient, err = parseCapabilities(value)
		case "NoNewPrivs":
			r.NoNewPrivs, err = strconv.ParseBool(value)
		case "Seccomp":
			r.Seccomp, err = seccompMode(value)
		case "Seccomp_filters":
			r.SeccompFilters, err = strconv.Atoi(value)
		}
		if err != nil {
			return Rights{}, fmt.Errorf("%s: %w", key, err)
		}
	}
	// A kernel without seccomp has no such line; without the others nothing true could be said.
	for _, key := range []string{"Uid", "Gid", "CapEff", "CapBnd", "NoNewPrivs"} {
		if !seen[key] {
			return Rights{}, fmt.Errorf("no line %q", key)
		}
	}
	if r.Seccomp == "" {
		r.Seccomp = "off"
	}
	return r, nil
}

// effectiveID takes the second of real, effective, saved and file-system id.
func effectiveID(value string) (uint32, error) {
	fields := strings.Fields(value)
	if len(fields) < 2 {
		return 0, errors.New("want four numbers")
	}
	v, err := strconv.ParseUint(fields[1], 10, 32)
	return uint32(v), err
}

func seccompMode(value string) (string, error) {
	switch value {
	case "0":
		return "off", nil
	case "1":
		return "strict", nil
	case "2":
		return "filter", nil
	}
	return "", fmt.Errorf("unknown mode %q", value)
}

// capabilityNames are in the order of their bits, include/uapi/linux/capability.h; kernel 5.9 added the last.
const capabilityNames = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE " +
	"NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE " +
	"SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL " +
	"SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"

func parseCapabilities(hex string) ([]string, error) {
	bits, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return nil, err
	}
	names := strings.Fields(capabilityNames)
	set := []string{}
	for i := range 64 {
		switch {
		case bits&(1<<i) == 0:
		case i < len(names):
			set = append(set, names[i])
		default:
			set = append(set, strconv.Itoa(i))
		}
	}
	return set, nil
}
