package demo

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseIDMap(t *testing.T) {
	got, err := parseIDMap([]byte("         0       1000          1\n         1     100000      65536\n"))
	want := []IDRange{{0, 1000, 1}, {1, 100000, 65536}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"0 1000\n", "0 1000 x\n", "0 0 4294967296\n"} {
		if _, err := parseIDMap([]byte(bad)); err == nil {
			t.Errorf("%q: got nil, want an error", bad)
		}
	}
}

func TestParseMounts(t *testing.T) {
	for name, c := range map[string]struct {
		line string
		want Mount
	}{
		"root overlay": {
			"85 60 0:40 / / ro,nosuid,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,userxattr\n",
			Mount{Point: "/", Type: "overlay", Source: "overlay", ReadOnly: true, Options: "nosuid"},
		},
		"bind of a folder": {
			"86 85 254:0 /home/ann/a\\040b /data rw,nosuid,nodev shared:1 master:2 - ext4 /dev/vda rw\n",
			Mount{Point: "/data", Type: "ext4", Source: "/dev/vda", Root: "/home/ann/a b", Options: "nosuid,nodev"},
		},
		"read-only file system": {
			"87 85 0:22 / /sys rw - sysfs sysfs ro\n",
			Mount{Point: "/sys", Type: "sysfs", Source: "sysfs", ReadOnly: true},
		},
	} {
		got, err := parseMounts([]byte(c.line))
		if err != nil || len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, c.want)
		}
	}
	for _, bad := range []string{"85 60 0:40 / / ro\n", "85 60 - overlay overlay rw\n", "85 60 0:40 / / ro - overlay\n"} {
		if _, err := parseMounts([]byte(bad)); err == nil {
			t.Errorf("%q: got nil, want an error", bad)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		"/plain": "/plain", `/a\040b`: "/a b", `/a\134b\012`: "/a\\b\n", `/end\04`: `/end\04`, `/no\999x`: `/no\999x`, `\`: `\`,
	} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

const status = `Name:	whisk
Uid:	1000	0	0	0
Gid:	0	7	0	0
CapInh:	0000000000000000
CapPrm:	00000000a80425fb
CapEff:	00000000a80425fb
CapBnd:	8000000000000001
CapAmb:	0000000000000000
NoNewPrivs:	1
Seccomp:	2
Seccomp_filters:	1
`

func TestParseRights(t *testing.T) {
	got, err := parseRights([]byte(status))
	want := Rights{
		UID: 0, GID: 7,
		Effective: strings.Fields("CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP"),
		Bounding:  []string{"CHOWN", "63"}, // newer than this list
		Ambient:   []string{}, NoNewPrivs: true, Seccomp: "filter", SeccompFilters: 1,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	old := strings.NewReplacer("Seccomp:\t2\n", "", "Seccomp_filters:\t1\n", "").Replace(status)
	if got, err := parseRights([]byte(old)); err != nil || got.Seccomp != "off" || got.SeccompFilters != 0 {
		t.Errorf("kernel without seccomp: got %+v, %v, want off", got, err)
	}
	for name, bad := range map[string]string{
		"no line NoNewPrivs":   strings.Replace(status, "NoNewPrivs", "X", 1),
		"unknown seccomp mode": strings.Replace(status, "Seccomp:\t2", "Seccomp:\t9", 1),
		"one id":               strings.Replace(status, "Uid:\t1000\t0\t0\t0", "Uid:\t1000", 1),
	} {
		if _, err := parseRights([]byte(bad)); err == nil {
			t.Errorf("%s: got nil, want an error", name)
		}
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add([]byte("85 60 0:40 / / ro,nosuid,relatime - overlay overlay rw\n"))
	f.Add([]byte(`86 85 254:0 /a\040b /data\\ rw shared:1 - ext4 /dev/vda rw`))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseMounts(text)
		if err == nil && len(all) != strings.Count(string(text), "\n")+b2i(len(text) > 0 && text[len(text)-1] != '\n') {
			t.Errorf("%d mounts from %q", len(all), text)
		}
	})
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
