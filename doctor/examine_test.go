package doctor

import (
	"bytes"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/whisk-sandbox/whisk/userns"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// file is one of a made machine.
func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

// machine is a laptop of ann's on which all is well, with these files besides or instead; nil takes one away.
func machine(files fstest.MapFS) View {
	const uid = "1000"
	manager := "sys/fs/cgroup/user.slice/user-" + uid + ".slice/user@" + uid + ".service/"
	root := fstest.MapFS{
		"etc/os-release":                               file("PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n"),
		"etc/subuid":                                   file("ann:100000:65536\n"),
		"etc/subgid":                                   file("ann:100000:65536\n"),
		"proc/sys/user/max_user_namespaces":            file("63000\n"),
		"proc/sys/net/ipv4/ping_group_range":           file("0\t2147483647\n"),
		"proc/sys/net/ipv4/ip_unprivileged_port_start": file("80\n"),
		"proc/sys/fs/inotify/max_user_watches":         file("524288\n"),
		"proc/sys/fs/inotify/max_user_instances":       file("128\n"),
		"proc/self/ns/user":                            file(""),
		"proc/self/uid_map":                            file("0 0 4294967295\n"),
		"proc/self/cgroup":                             file("0::/user.slice/user-1000.slice/session-1.scope\n"),
		"sys/fs/cgroup/cgroup.controllers":             file("cpuset cpu io memory pids\n"),
		manager + "cgroup.controllers":                 file("cpu memory pids\n"),
		"run/systemd/system":                           &fstest.MapFile{Mode: fs.ModeDir},
		"run/user/1000/bus":                            file(""),
		"var/lib/systemd/linger/ann":                   file(""),
	}
	maps.Copy(root, files)
	maps.DeleteFunc(root, func(_ string, f *fstest.MapFile) bool { return f == nil })
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	return View{
		Machine: userns.Machine{Root: root, UID: 1000, Binary: "/usr/bin/whisk", Helper: func(name string) userns.Helper {
			return userns.Helper{Path: "/usr/bin/" + name, Setuid: true}
		}},
		User: userns.User{Name: "ann", UID: 1000, GID: 1000}, Groups: []uint32{1000},
		Whisk: "1.0", Kernel: "6.1.0-30-amd64", Arch: "x86_64",
		Inside: &Tried{Images: 3}, Store: "/home/ann/.local/share/whisk",
		Disk:       FileSystem{Type: 0xef53, Free: 50e9, Path: "/home/ann/.local/share/whisk"},
		UserNotify: true, LandlockABI: 2, Descriptors: 524288, Now: at, Built: at.Add(-time.Hour),
	}
}

// refused is the machine on which the kernel said no.
func refused(v View, at userns.Step, errno syscall.Errno) View {
	v.Refusal, v.Inside = &userns.Refusal{Step: at, Err: errno}, nil
	return v
}

func with(v View, change func(*View)) View {
	change(&v)
	return v
}

func release(id, like, name string) fstest.MapFS {
	return fstest.MapFS{"etc/os-release": file("ID=" + id + "\nID_LIKE=\"" + like + "\"\nPRETTY_NAME=\"" + name + "\"\n")}
}

func files(all ...fstest.MapFS) fstest.MapFS {
	out := fstest.MapFS{}
	for _, f := range all {
		maps.Copy(out, f)
	}
	return out
}

// unserved is a machine as distributions install it for somebody of a directory service: no ranges, no helpers.
func unserved(f fstest.MapFS) View {
	v := machine(files(f, fstest.MapFS{"etc/subuid": nil, "etc/subgid": nil, "var/lib/systemd/linger/ann": nil}))
	v.Machine.Helper = nil
	return v
}

// noHelpers is the same for somebody who has ranges.
func noHelpers(f fstest.MapFS) View {
	v := machine(f)
	v.Machine.Helper = nil
	return v
}

func TestExamine(t *testing.T) {
	debian13 := release("debian", "", "Debian GNU/Linux 13 (trixie)")
	ubuntu := release("ubuntu", "debian", "Ubuntu 24.04.1 LTS")
	fedora := release("fedora", "", "Fedora Linux 42")
	arch := release("arch", "", "Arch Linux")
	suse := release("opensuse-tumbleweed", "opensuse suse", "openSUSE Tumbleweed")
	alpine := release("alpine", "", "Alpine Linux v3.22")
	restricted := files(ubuntu, fstest.MapFS{
		"proc/sys/kernel/apparmor_restrict_unprivileged_userns": file("1\n"),
		"proc/sys/net/ipv4/ip_unprivileged_port_start":          file("1024\n"),
		"proc/self/attr/current":                                file("unconfined\n"),
	})
	nothing := fstest.MapFS{}
	for name, c := range map[string]struct {
		View
		broken bool
	}{
		"debian12":          {machine(nothing), false},
		"debian13":          {machine(debian13), false},
		"debian-no-helpers": {noHelpers(debian13), false},
		"debian-no-subids":  {unserved(nothing), false},
		"debian-small-range": {machine(fstest.MapFS{
			"etc/subuid": file("bob:100000:65536\nann:165536:1000\n"), "etc/subgid": file("ann:165536:65536\n")}), true},
		"debian-clash":       {machine(fstest.MapFS{"etc/subuid": file("ann:100000:65536\nbob:120000:65536\n")}), false},
		"debian-userns-off":  {refused(machine(fstest.MapFS{"proc/sys/kernel/unprivileged_userns_clone": file("0\n")}), userns.StepClone, syscall.EPERM), true},
		"ubuntu-restricted":  {refused(machine(restricted), userns.StepPrivilege, syscall.EPERM), true},
		"ubuntu-with-rights": {machine(restricted), false},
		"ubuntu-no-helpers":  {noHelpers(ubuntu), false},
		"fedora":             {machine(fedora), false},
		"fedora-no-helpers":  {noHelpers(fedora), false},
		"fedora-no-subids":   {unserved(fedora), false},
		"fedora-userns-max":  {refused(machine(files(fedora, fstest.MapFS{"proc/sys/user/max_user_namespaces": file("0\n")})), userns.StepClone, syscall.ENOSPC), true},
		"arch-no-helpers":    {noHelpers(arch), false},
		"arch-userns-off":    {refused(machine(files(arch, fstest.MapFS{"proc/sys/kernel/unprivileged_userns_clone": file("0\n")})), userns.StepClone, syscall.EPERM), true},
		"suse-no-helpers":    {noHelpers(suse), false},
		"suse-not-setuid": {with(machine(suse), func(v *View) {
			v.Machine.Helper = func(name string) userns.Helper { return userns.Helper{Path: "/usr/bin/" + name} }
		}), true},
		"alpine-no-helpers": {noHelpers(files(alpine, fstest.MapFS{"run/systemd/system": nil})), false},
		"alpine-no-subids":  {unserved(files(alpine, fstest.MapFS{"run/systemd/system": nil, "sys/fs/cgroup/cgroup.controllers": nil})), false},
		"unknown":           {noHelpers(fstest.MapFS{"etc/os-release": nil}), false},
		"nf-tables-missing": {with(machine(nothing), func(v *View) { v.Inside.Tables = "netlink receive: operation not supported" }), false},
		"tproxy-missing":    {with(machine(nothing), func(v *View) { v.Inside.TProxy = "netlink receive: no such file or directory" }), false},
		"isolate-missing": {with(machine(nothing), func(v *View) {
			v.Inside.Ct, v.Inside.Reject = "netlink receive: no such file or directory", "netlink receive: no such file or directory"
		}), false},
		"nfs-home": {with(machine(nothing), func(v *View) {
			v.Disk.Type, v.Inside.Owner, v.Inside.Overlay = 0x6969, "chown file: operation not permitted", "invalid argument"
		}), true},
		"ecryptfs-home": {with(machine(nothing), func(v *View) { v.Disk.Type, v.Inside.Overlay = 0xf15f, "invalid argument" }), true},
		"cgroup-v1":     {machine(fstest.MapFS{"sys/fs/cgroup/cgroup.controllers": nil, "sys/fs/cgroup/memory": {Mode: fs.ModeDir}}), false},
		"not-delegated": {machine(fstest.MapFS{
			"sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/cgroup.controllers": file("pids\n")}), false},
		"in-a-container": {with(refused(machine(fstest.MapFS{"run/.containerenv": file(""), "run/systemd/system": nil}), userns.StepClone, syscall.EPERM), func(v *View) {
			v.Machine.Filtered = true
		}), true},
		"old-and-full": {with(machine(fstest.MapFS{
			"proc/sys/net/ipv4/ping_group_range":           file("1\t0\n"),
			"proc/sys/net/ipv4/ip_unprivileged_port_start": file("1024\n"),
			"proc/sys/fs/inotify/max_user_watches":         file("8192\n"),
			"run/user/1000/bus":                            nil,
		}), func(v *View) {
			v.LandlockABI, v.UserNotify, v.Descriptors, v.Disk.Free = 0, false, 1024, 1e9
			v.Now = time.Date(1970, 1, 1, 0, 2, 0, 0, time.UTC)
		}), false},
		"filtered": {with(machine(nothing), func(v *View) {
			v.Seccomp, v.Landlock = "seccomp: function not implemented", "ask for landlock: operation not permitted"
		}), true},
		"store-damaged": {with(machine(nothing), func(v *View) { v.Inside.Store = "the image store is damaged: layers.json: unexpected end" }), true},
	} {
		t.Run(name, func(t *testing.T) {
			findings := Examine(c.View)
			if got := Broken(findings); got != c.broken {
				t.Errorf("Broken = %v, want %v", got, c.broken)
			}
			var b bytes.Buffer
			if err := Write(&b, findings, func(s string) string { return s }); err != nil {
				t.Fatal(err)
			}
			b.WriteString("\n")
			b.WriteString(Script(findings))
			golden(t, name, b.Bytes())
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: go test ./doctor -update writes it", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
