package rights

import (
	"math/bits"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestCapSet(t *testing.T) {
	const bpf, perfmon = uint64(1) << unix.CAP_BPF, uint64(1) << unix.CAP_PERFMON
	words := func(s string) []string { return strings.Fields(s) }
	for name, c := range map[string]struct {
		add, drop string
		last      uint
		want      uint64
		error     string
	}{
		"default":                  {last: 40, want: DefaultCaps},
		"with CAP_ and small":      {add: "cap_net_admin", last: 40, want: DefaultCaps | 1<<unix.CAP_NET_ADMIN},
		"without one":              {drop: "NET_RAW CAP_MKNOD", last: 40, want: DefaultCaps &^ (1<<unix.CAP_NET_RAW | 1<<unix.CAP_MKNOD)},
		"none":                     {drop: "ALL", last: 40},
		"one only":                 {drop: "all", add: "NET_BIND_SERVICE", last: 40, want: 1 << unix.CAP_NET_BIND_SERVICE},
		"all":                      {add: "ALL", last: 40, want: 1<<41 - 1},
		"all of an older kernel":   {add: "ALL", last: 37, want: 1<<38 - 1},
		"all but some":             {add: "ALL", drop: "BPF PERFMON", last: 40, want: (1<<41 - 1) &^ (bpf | perfmon)},
		"added and dropped":        {add: "CHOWN", drop: "CHOWN", last: 40, want: DefaultCaps},
		"all added and dropped":    {add: "ALL", drop: "ALL", last: 40, error: "ALL cannot be both"},
		"unknown":                  {add: "NET_ADMINN", last: 40, error: `unknown capability "NET_ADMINN"`},
		"unknown, dropped":         {drop: "CAP_", last: 40, error: `unknown capability "CAP_"`},
		"not known to this kernel": {add: "BPF", last: 37, error: `"BPF": this kernel does not have it`},
	} {
		got, err := capSet(words(c.add), words(c.drop), c.last)
		if c.error != "" {
			if err == nil || !strings.Contains(err.Error(), c.error) {
				t.Errorf("%s: %v, want %q", name, err, c.error)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %v, %v, want %v", name, CapNames(got), err, CapNames(c.want))
		}
	}
}

func TestDefaultCapsAreDockers(t *testing.T) {
	want := strings.Fields("CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SYS_CHROOT CAP_MKNOD CAP_AUDIT_WRITE CAP_SETFCAP")
	if got := CapNames(DefaultCaps); !reflect.DeepEqual(got, want) {
		t.Errorf("CapNames(DefaultCaps) = %v, want %v", got, want)
	}
}

// TestExceptedCapsAreTheProfiles guards the short cut to the generated filter against a newer profile.
func TestExceptedCapsAreTheProfiles(t *testing.T) {
	var got []string
	for _, s := range seccomp.DefaultProfile().Syscalls {
		for _, f := range []*seccomp.Filter{s.Includes, s.Excludes} {
			if f == nil {
				continue
			}
			got = append(got, f.Caps...)
			if f.MinKernel != nil && older(oldestKernel(), [2]uint64{f.MinKernel.Kernel, f.MinKernel.Major}) {
				t.Errorf("%v depends on kernel %v, which the generated filters do not look at", s.Names, f.MinKernel)
			}
		}
	}
	for _, c := range got {
		if !slices.Contains(CapNames(excepted), c) {
			t.Errorf("the profile makes an exception for %s, and excepted lacks it", c)
		}
	}
	if n := bits.OnesCount64(excepted); n != len(slices.Compact(slices.Sorted(slices.Values(got)))) {
		t.Errorf("excepted has %d capabilities: %v, the profile %v", n, CapNames(excepted), got)
	}
}

// TestResolvedLikeMoby compares with the profile's own resolution, on the architecture and kernel of this machine.
func TestResolvedLikeMoby(t *testing.T) {
	m, err := thisMachine()
	if err != nil {
		t.Fatal(err)
	}
	abi, err := abiOf(m.arch)
	if err != nil {
		t.Fatal(err)
	}
	for _, caps := range []uint64{0, DefaultCaps, DefaultCaps | 1<<unix.CAP_SYS_ADMIN, 1<<(m.lastCap+1) - 1} {
		want, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: CapNames(caps)}}})
		if err != nil {
			t.Fatal(err)
		}
		var got []specs.LinuxSyscall
		for _, s := range seccomp.DefaultProfile().Syscalls {
			if applies(s, abi, CapNames(caps), m.kernel) {
				got = append(got, s.LinuxSyscall)
			}
		}
		if !reflect.DeepEqual(got, want.Syscalls) {
			t.Errorf("with %v: %d rules apply, moby says %d", CapNames(caps), len(got), len(want.Syscalls))
		}
	}
}

func TestPlanOfTheRest(t *testing.T) {
	no := false
	m := modern("amd64")
	m.throttle = []string{"/sys/devices/system/cpu/cpu0/thermal_throttle"}
	r, err := plan(Request{NoNewPrivs: &no, Seccomp: "unconfined"}, m)
	if err != nil {
		t.Fatal(err)
	}
	if r.NoNewPrivs || r.Filter != nil || r.Caps != DefaultCaps {
		t.Errorf("plan = no_new_privs %v, filter of %d, caps %x", r.NoNewPrivs, len(r.Filter), r.Caps)
	}
	for _, path := range []string{"/proc/interrupts", "/sys/devices/virtual/powercap", m.throttle[0]} {
		if !slices.Contains(r.Masked, path) {
			t.Errorf("%s is not masked", path)
		}
	}
	if r, err := plan(Request{}, m); err != nil || !r.NoNewPrivs {
		t.Errorf("no_new_privs is not the default: %v", err)
	}
	if _, err := plan(Request{}, modern("mips")); err == nil {
		t.Error("a filter for an architecture that has none")
	}
	for text, want := range map[string][2]uint64{"6.12.41+deb13-amd64": {6, 12}, "4.19": {4, 19}, "6.18.44-fc": {6, 18}, "x": {}} {
		if got := release(text); got != want {
			t.Errorf("release(%q) = %v, want %v", text, got, want)
		}
	}
}
