package cgroup

import (
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/whisk-sandbox/whisk/mend"
)

func TestSettings(t *testing.T) {
	all := []string{"cpu", "memory", "pids"}
	for _, c := range []struct {
		name        string
		limits      Limits
		controllers []string
		want        []Setting
	}{
		{"none", Limits{}, all, []Setting{{"memory.max", "max", false}, {"memory.swap.max", "max", true}, {"cpu.max", "max 100000", false}, {"pids.max", "max", false}}},
		{"all", Limits{Memory: 64 << 20, CPUs: 1.5, Pids: 50}, all, []Setting{{"memory.max", "67108864", false}, {"memory.swap.max", "67108864", true}, {"cpu.max", "150000 100000", false}, {"pids.max", "50", false}}},
		{"a third of a processor", Limits{CPUs: 1.0 / 3}, []string{"cpu"}, []Setting{{"cpu.max", "33333 100000", false}}},
		{"less than the kernel takes", Limits{CPUs: 0.001}, []string{"cpu"}, []Setting{{"cpu.max", "1000 100000", false}}},
		{"half of the disks' time", Limits{Weight: 505}, []string{"io"}, []Setting{{"io.bfq.weight", "505", true}, {"io.weight", "default 5000", true}}},
		{"no swap at all", Limits{Memory: 64 << 20, MemorySwap: 64 << 20}, []string{"memory"}, []Setting{{"memory.max", "67108864", false}, {"memory.swap.max", "0", true}}},
		{"half as much swap", Limits{Memory: 64 << 20, MemorySwap: 96 << 20}, []string{"memory"}, []Setting{{"memory.max", "67108864", false}, {"memory.swap.max", "33554432", true}}},
		{"swap without a limit", Limits{Memory: 64 << 20, MemorySwap: -1}, []string{"memory"}, []Setting{{"memory.max", "67108864", false}, {"memory.swap.max", "max", true}}},
		{"nothing delegated", Limits{}, nil, nil},
	} {
		if got := c.limits.Settings(c.controllers); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestLost(t *testing.T) {
	good := Machine{Unified: true, Systemd: true, User: true, Bus: "/run/user/1000/bus", Controllers: []string{"cpu", "memory", "pids"}}
	few, noBus, old, bare := good, good, good, good
	few.Controllers = []string{"memory", "pids"}
	noBus.Bus = ""
	old.Unified, old.Older = false, true
	bare.Systemd = false
	su, alpine := good, few
	su.User, su.Bus = false, ""
	noBus.Distro, alpine.Distro = mend.Distro{Family: mend.Debian}, mend.Distro{Family: mend.Alpine}
	for _, c := range []struct {
		name    string
		limits  Limits
		machine Machine
		want    string
		hint    string
	}{
		{"all kept", Limits{Memory: 1 << 30, CPUs: 1, Pids: 5}, good, "", ""},
		{"nothing asked", Limits{}, Machine{}, "", ""},
		{"no unified tree", Limits{Memory: 1 << 30, Pids: 5}, old, "a memory limit and a limit of processes cannot be kept: this machine does not have control groups of version 2 alone", "systemd.unified_cgroup_hierarchy=1"},
		{"no systemd", Limits{CPUs: 2}, bare, "a cpu limit cannot be kept: no systemd runs here to give whisk a control group of its own", "--best-effort"},
		{"no bus", Limits{CPUs: 2}, noBus, "a cpu limit cannot be kept: your login has no D-Bus socket to ask its systemd for a control group through", "log in anew after: sudo apt-get install -y dbus-user-session"},
		{"through su", Limits{CPUs: 2}, su, "a cpu limit cannot be kept: your login has no systemd of its own to ask for a control group", "not su or sudo"},
		{"in the distribution's words", Limits{CPUs: 2}, alpine, "a cpu limit cannot be kept: the control group of your login has no cpu controller", "log in anew after: doas mkdir"},
		{"cpu not delegated", Limits{CPUs: 2, Memory: 1 << 30}, few, "a cpu limit cannot be kept: the control group of your login has no cpu controller", "Delegate="},
		{"io not delegated", Limits{Weight: 100, Disks: []Disk{{Path: "/dev/sda", ReadBPS: 1}}}, good, "a limit of a disk's rate and a share of the disks' time cannot be kept: the control group of your login has no io controller", "Delegate="},
		{"what is delegated is kept", Limits{Memory: 1 << 30}, few, "", ""},
	} {
		got, hint := c.limits.Lost(c.machine)
		if got != c.want || !strings.Contains(hint, c.hint) {
			t.Errorf("%s: %q, hint %q; want %q, hint with %q", c.name, got, hint, c.want, c.hint)
		}
	}
}

func TestKept(t *testing.T) {
	all := Limits{Memory: 1 << 30, CPUs: 2, Pids: 5, Weight: 20, Disks: []Disk{{Path: "/dev/sda", ReadBPS: 1}}}
	for _, c := range []struct {
		name    string
		machine Machine
		want    Limits
	}{
		{"everything", Machine{Unified: true, Systemd: true, User: true, Bus: "/bus", Controllers: []string{"cpu", "io", "memory", "pids"}}, all},
		{"what is delegated", Machine{Unified: true, Systemd: true, User: true, Bus: "/bus", Controllers: []string{"memory"}}, Limits{Memory: 1 << 30}},
		{"nothing without a bus", Machine{Unified: true, Systemd: true, User: true, Controllers: []string{"cpu", "memory", "pids"}}, Limits{}},
	} {
		got := all.Kept(c.machine)
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		if lost, _ := got.Lost(c.machine); lost != "" {
			t.Errorf("%s: what is kept is lost: %s", c.name, lost)
		}
	}
}

func TestUnitName(t *testing.T) {
	if got, want := unitName("my shop/ü", 42), "whisk-my_shop__-42.scope"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestOwnPath(t *testing.T) {
	got, err := ownPath("12:pids:/a\n0::/user.slice/x.scope\n")
	if err != nil || got != "/user.slice/x.scope" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := ownPath("12:pids:/a\n"); err == nil {
		t.Errorf("version 1 alone gives %q", got)
	}
}

func TestReadStats(t *testing.T) {
	files := map[string]string{
		"cpu.stat":       "usage_usec 1500\nuser_usec 1000\nthrottled_usec 20\n",
		"memory.current": "5000\n", "memory.max": "max\n", "memory.peak": "9000\n",
		"memory.stat": "anon 1\ninactive_file 2000\n", "memory.events": "low 0\noom 3\noom_kill 2\n",
		"pids.current": "7\n", "pids.max": "50\n",
		"io.stat": "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n",
	}
	got, err := readStats(func(f string) (string, error) {
		text, ok := files[f]
		if !ok {
			return "", fs.ErrNotExist
		}
		return text, nil
	})
	want := Stats{CPU: 1500 * time.Microsecond, Throttled: 20 * time.Microsecond, Memory: 3000, MemoryPeak: 9000, Pids: 7, PidsLimit: 50, ReadBytes: 11, WriteBytes: 22, OOMKills: 2}
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := readStats(func(string) (string, error) { return "", fs.ErrNotExist }); err == nil {
		t.Error("a group that is gone has figures")
	}
}

// A login that came about without a runtime directory of its own is the user's all the same, and root's is one like others'.
func TestMachineOf(t *testing.T) {
	socket := func(path string) fstest.MapFS { return fstest.MapFS{path: {Mode: fs.ModeSocket | 0o600}} }
	group := fstest.MapFS{
		"run/systemd/system/x": {}, "sys/fs/cgroup/cgroup.controllers": {Data: []byte("cpu io memory pids")},
		"sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/cgroup.controllers": {Data: []byte("cpu memory pids\n")},
	}
	with := func(all ...fstest.MapFS) fstest.MapFS {
		out := fstest.MapFS{}
		for _, m := range all {
			for k, v := range m {
				out[k] = v
			}
		}
		return out
	}
	for _, c := range []struct {
		name       string
		files      fstest.MapFS
		uid        int
		runtimeDir string
		bus, cause string
	}{
		{"a login", with(group, socket("run/user/1000/bus")), 1000, "/run/user/1000", "/run/user/1000/bus", ""},
		{"no XDG_RUNTIME_DIR", with(group, socket("run/user/1000/bus")), 1000, "", "/run/user/1000/bus", ""},
		{"one of somebody's own", with(group, socket("run/user/1000/bus")), 1000, "/tmp/x", "/run/user/1000/bus", ""},
		{"a bus elsewhere", with(group, socket("srv/run/bus")), 1000, "/srv/run", "/srv/run/bus", ""},
		{"a file in its place", with(group, fstest.MapFS{"run/user/1000/bus": {}}), 1000, "/run/user/1000", "", "no-bus"},
		{"root without a login", with(group, socket("run/user/1000/bus")), 0, "", "", "no-user-systemd"},
		{"nothing", fstest.MapFS{}, 1000, "", "", "no-systemd"},
		{"version 1", with(fstest.MapFS{"run/systemd/system/x": {}, "sys/fs/cgroup/memory/x": {}}), 1000, "", "", "cgroup-v1"},
		{"none mounted", with(fstest.MapFS{"run/systemd/system/x": {}}), 1000, "", "", "no-cgroup"},
	} {
		m := On(c.files, c.uid, c.runtimeDir)
		var cause string
		if l := m.Lack(); l != nil {
			cause = l.Cause
		}
		if m.Bus != c.bus || cause != c.cause {
			t.Errorf("%s: bus %q, lack %q; want %q, %q", c.name, m.Bus, cause, c.bus, c.cause)
		}
	}
	if l := On(with(group, socket("run/user/1000/bus")), 1000, "").LackOf("memory", "io", "io"); l == nil || l.Cause != "not-delegated" || l.What != "the control group of your login has no io controller" {
		t.Errorf("io: %+v", l)
	}
}
