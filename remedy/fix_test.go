package remedy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

func TestRead(t *testing.T) {
	for text, want := range map[string]Family{
		"ID=debian\n":                                       Debian,
		"ID=ubuntu\nID_LIKE=debian\n":                       Debian,
		"ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n":         Debian,
		"ID=fedora\n":                                       Fedora,
		"ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n":    Fedora,
		"ID=arch\n":                                         Arch,
		"ID=endeavouros\nID_LIKE=arch\n":                    Arch,
		"ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n": SUSE,
		"ID=alpine\n":                                       Alpine,
		"ID=nixos\n":                                        Unknown,
		"":                                                  Unknown,
		"# a comment\nID='debian'\nPRETTY_NAME=\"no newline\"": Debian,
	} {
		got := Read(fstest.MapFS{"usr/lib/os-release": {Data: []byte(text)}})
		if got.Family != want {
			t.Errorf("family of %q = %q, want %q", text, got.Family, want)
		}
	}
	if got := Read(fstest.MapFS{}); got != (System{}) {
		t.Errorf("without os-release: %+v", got)
	}
}

// TestScriptRunsTwice runs a script that is about files in a folder of the test's own, as root would: what it writes is
// there, and the second run changes nothing.
func TestScriptRunsTwice(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	for _, d := range []string{bin, filepath.Join(dir, "etc")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	called := filepath.Join(dir, "called")
	for name, body := range map[string]string{
		"id":              "echo 0",
		"sysctl":          `echo "sysctl $*" >>` + called,
		"apparmor_parser": `echo "apparmor_parser $*" >>` + called,
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := System{Family: Debian}
	text := Script([]Fix{
		s.Sysctl("user.max_user_namespaces", "28633"), s.Sysctl("net.ipv4.ping_group_range", "0 2147483647"),
		s.SubIDs("ann", 100000, 65536, true, true), s.SubIDs("ann", 100000, 65536, true, true), s.Descriptors("ann"),
		s.AppArmor("/opt/a b/whisk"), {Line: "for nobody"},
	})
	text = strings.ReplaceAll(text, "/etc/", dir+"/etc/")
	if err := os.Mkdir(filepath.Join(dir, "etc", "apparmor.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func() {
		t.Helper()
		cmd := exec.Command("sh", "-c", text)
		cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s\n%s", err, out, text)
		}
	}
	want := map[string]string{
		"etc/subuid":                       "ann:100000:65536\n",
		"etc/subgid":                       "ann:100000:65536\n",
		"etc/security/limits.d/whisk.conf": "ann hard nofile 524288\n",
		"etc/apparmor.d/whisk":             Profile("/opt/a b/whisk"),
	}
	for range 2 {
		run()
		for name, text := range want {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != text {
				t.Errorf("%s: %q, %v; want %q", name, got, err, text)
			}
		}
		got, err := os.ReadFile(filepath.Join(dir, "etc/sysctl.d/60-whisk.conf"))
		for _, l := range []string{"user.max_user_namespaces = 28633\n", "net.ipv4.ping_group_range = 0 2147483647\n"} {
			if err != nil || strings.Count(string(got), l) != 1 {
				t.Errorf("settings: %q, %v; want %q once", got, err, l)
			}
		}
	}
	said, err := os.ReadFile(called)
	for _, l := range []string{"sysctl -w net.ipv4.ping_group_range=0 2147483647\n", "apparmor_parser -r "} {
		if err != nil || strings.Count(string(said), l) != 2 {
			t.Errorf("called %q, %v; want %q once a run", said, err, l)
		}
	}
}

// TestScriptTakesNoOrders: names come from the environment and from directory services, and root runs the script.
func TestScriptTakesNoOrders(t *testing.T) {
	dir := t.TempDir()
	marker := filepath.Join(dir, "marker")
	bin := filepath.Join(dir, "bin") // nothing that could change the machine
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"touch", "cat", "mkdir", "grep"} {
		path, err := exec.LookPath(name)
		if err == nil {
			err = os.Symlink(path, filepath.Join(bin, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	evil := "a'\n$(touch " + marker + ");`touch " + marker + "`\nPROFILE\ntouch " + marker + "\n"
	for _, family := range []Family{Debian, Alpine, Unknown} {
		s := System{Family: family}
		text := Script([]Fix{s.SubIDs(evil, 1, 2, true, true), s.Descriptors(evil), s.AppArmor("/" + evil), s.Setuid("/" + evil), s.Linger(evil)})
		text = strings.ReplaceAll(strings.ReplaceAll(text, "/etc/", dir+"/"), "set -eu", "set +e; id() { echo 0; }")
		if out, err := exec.Command("sh", "-n", "-c", text).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		cmd := exec.Command(sh, "-c", text)
		cmd.Env = []string{"PATH=" + bin}
		_ = cmd.Run() // there is nothing of that name to mend
		if _, err := os.Stat(marker); err == nil {
			t.Fatalf("the script obeyed a name:\n%s", text)
		}
	}
}

func TestHintEndsWithDoctor(t *testing.T) {
	for line, want := range map[string]string{"": "whisk doctor", "sudo x": "sudo x; more: whisk doctor"} {
		if got := Hint(line); got != want {
			t.Errorf("Hint(%q) = %q, want %q", line, got, want)
		}
	}
}
