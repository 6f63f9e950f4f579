package rights

import (
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Request is what the user asked for. The zero value asks for the defaults.
type Request struct {
	CapAdd  []string // capability names, CAP_ and case optional, or ALL
	CapDrop []string // the same; what is added and dropped by name is added
	// NoNewPrivs keeps setuid programs and file capabilities from raising rights; nil: true.
	NoNewPrivs *bool
	// Seccomp is "" for the default profile, "unconfined" for none, or the text of a profile in Docker's or the
	// OCI's JSON.
	Seccomp string
	// FakeOwnership answers calls that change the owners of files with success and does not make them. It is for
	// sandboxes with one id only, where they could not succeed and most programs only want to go on. Calls that
	// change a process's ids are IDFilter's.
	FakeOwnership bool
}

// Rights is the plan. The launcher applies it to the app, last of all.
type Rights struct {
	// Caps is a bit set by capability number: bounding, permitted and effective set of uid 0. The ambient and
	// inheritable sets are to be empty.
	Caps       uint64
	All        bool // Caps are all that the kernel has
	NoNewPrivs bool
	// Filter is for seccomp(2); nil: none. Without NoNewPrivs it must be installed while the process still has
	// CAP_SYS_ADMIN. It must not be changed.
	Filter []unix.SockFilter
	// FilterFlags are the flags for SECCOMP_SET_MODE_FILTER that the profile asks for.
	FilterFlags uint
	// Masked paths are hidden: under an empty tmpfs, or /dev/null where they are files. Those that do not exist
	// are passed over.
	Masked []string
	// ReadOnly paths are mounted read-only over themselves. Those that do not exist are passed over.
	ReadOnly []string
}

// Plan decides on the rights. Unknown capabilities and profiles that cannot be kept are errors.
func Plan(r Request) (*Rights, error) {
	m, err := thisMachine()
	if err != nil {
		return nil, err
	}
	return plan(r, m)
}

// machine is what the plan depends on beside the request.
type machine struct {
	arch     string    // as GOARCH
	kernel   [2]uint64 // 6, 12
	lastCap  uint      // the highest capability that the kernel knows
	throttle []string  // directories of the CPUs' thermal counters
}

func plan(r Request, m machine) (*Rights, error) {
	caps, err := capSet(r.CapAdd, r.CapDrop, m.lastCap)
	if err != nil {
		return nil, err
	}
	filter, flags, err := filterFor(r, caps, m)
	if err != nil {
		return nil, err
	}
	return &Rights{
		Caps:        caps,
		All:         caps == 1<<(m.lastCap+1)-1,
		NoNewPrivs:  r.NoNewPrivs == nil || *r.NoNewPrivs,
		Filter:      filter,
		FilterFlags: flags,
		Masked:      append(masked(), m.throttle...),
		ReadOnly:    readOnly(),
	}, nil
}

func thisMachine() (machine, error) {
	m := machine{arch: runtime.GOARCH}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return m, err
	}
	m.kernel = release(unix.ByteSliceToString(uts.Release[:]))
	for {
		if v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(m.lastCap)+1, 0, 0, 0); err != nil || v < 0 {
			break
		}
		m.lastCap++
	}
	if _, err := os.Stat("/sys/devices/system/cpu/cpu0/thermal_throttle"); err == nil { // Intel's, on bare metal
		m.throttle, _ = filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle") // errors are for bad patterns only
	}
	return m, nil
}

// release reads the first two numbers of "6.12.41+deb13-amd64"; what is not a number counts as 0.
func release(s string) (v [2]uint64) {
	i := 0
	for _, c := range s {
		switch {
		case c >= '0' && c <= '9':
			v[i] = v[i]*10 + uint64(c-'0')
		case c == '.' && i == 0:
			i++
		default:
			return v
		}
	}
	return v
}
