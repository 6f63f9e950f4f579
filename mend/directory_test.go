package mend

import (
	"testing"
	"testing/fstest"
)

func TestDirectoryIsNotUsermods(t *testing.T) {
	for got, want := range map[string]string{
		Distro{Family: Fedora}.InstallGetsubids():            "sudo dnf install -y shadow-utils-subid",
		Distro{}.InstallGetsubids():                          "install getsubids (Debian's package is uidmap)",
		Distro{}.DirectoryRange("sss", "ann b", 65536):       "have whoever keeps the directory give ann b a range of 65536 ids (FreeIPA: ipa subid-generate --owner='ann b'); it is there when this shows it: getsubids 'ann b'",
		Distro{}.DirectoryRange("ldap", "ann", 65536):        "have whoever keeps the directory give ann a range of 65536 ids; it is there when this shows it: getsubids ann",
		Distro{Family: Fedora}.DirectoryAnswer("sss", "ann"): "see what it says: getsubids ann; where SSSD is down: sudo systemctl restart sssd",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestMoveSubIDs(t *testing.T) {
	uids, gids := [][2]uint64{{150000, 165535}}, [][2]uint64{{1, 2}, {5, 6}}
	for family, want := range map[Family]string{
		Debian: "sudo usermod --del-subuids 150000-165535 --del-subgids 1-2 --del-subgids 5-6 --add-subuids 200000-265535 --add-subgids 200000-265535 ann",
		Alpine: "doas sed -i '/^ann:/d' /etc/subuid /etc/subgid && echo ann:200000:65536 | doas tee -a /etc/subuid /etc/subgid",
	} {
		if got := (Distro{Family: family}).MoveSubIDs("ann", 200000, 65536, uids, gids); got != want {
			t.Errorf("%s: %q, want %q", family, got, want)
		}
	}
}

// A name is a name, also in sed's language.
func TestMoveSubIDsOfAStrangeName(t *testing.T) {
	want := "doas sed -i '/^a..e.touch.x...b:/d' /etc/subuid /etc/subgid && echo 'a/;e touch x; /b:1:2' | doas tee -a /etc/subuid /etc/subgid"
	if got := (Distro{Family: Alpine}).MoveSubIDs("a/;e touch x; /b", 1, 2, nil, nil); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestContainer(t *testing.T) {
	file := func(path, text string) fstest.MapFS { return fstest.MapFS{path: {Data: []byte(text)}} }
	for _, c := range []struct {
		name  string
		files fstest.MapFS
		pod   bool
		want  string
	}{
		{"a laptop", file("proc/self/uid_map", "         0          0 4294967295\n"), false, ""},
		{"no /proc", fstest.MapFS{}, false, ""},
		{"podman", file("run/.containerenv", ""), false, "podman"},
		{"docker", file(".dockerenv", ""), false, "docker"},
		{"a pod", fstest.MapFS{}, true, "kubernetes"},
		{"nspawn", file("run/systemd/container", "systemd-nspawn\n"), false, "systemd-nspawn"},
		{"a group of containerd's", file("proc/1/cgroup", "0::/kubepods/besteffort/pod1\n"), false, "kubepods"},
		{"a login's group", file("proc/1/cgroup", "0::/init.scope\n"), false, ""},
		{"a user namespace", file("proc/self/uid_map", "0 1000 1\n"), false, "a user namespace"},
	} {
		if got := Container(c.files, c.pod); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
