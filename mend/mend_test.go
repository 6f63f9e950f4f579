package mend

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

func TestDistroOfOSRelease(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want Distro
	}{
		"Debian":      {"PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nID=debian\n", Distro{"Debian GNU/Linux 13 (trixie)", Debian}},
		"Ubuntu":      {"ID=ubuntu\nID_LIKE=debian\nPRETTY_NAME='Ubuntu 24.04.3 LTS'\n", Distro{"Ubuntu 24.04.3 LTS", Ubuntu}},
		"like Ubuntu": {"ID_LIKE=\"ubuntu debian\"\nID=linuxmint\n", Distro{"", Ubuntu}},
		"like RHEL":   {"ID=rocky\nID_LIKE=\"rhel centos fedora\"\n", Distro{"", Fedora}},
		"Tumbleweed":  {"ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"\n", Distro{"", SUSE}},
		"unheard of":  {"ID=lfs\nno assignment\n", Distro{}},
	} {
		if got := parse(c.text); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	vendor := fstest.MapFS{"usr/lib/os-release": {Data: []byte("ID=arch\n")}}
	if got := Read(vendor); got.Family != Arch {
		t.Errorf("os-release in /usr/lib only: %+v, want arch", got)
	}
	if got := Read(fstest.MapFS{}); got != (Distro{}) {
		t.Errorf("no os-release: %+v, want the zero value", got)
	}
}

func TestRemediesByDistribution(t *testing.T) {
	for _, c := range []struct {
		family                   Family
		install, sysctl, subuids string
	}{
		{Debian, "sudo apt-get install -y uidmap", "sudo sysctl -w a.b=1", "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann"},
		{Ubuntu, "sudo apt-get install -y uidmap", "sudo sysctl -w a.b=1", "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann"},
		{Fedora, "sudo dnf install -y shadow-utils", "sudo sysctl -w a.b=1", "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann"},
		{Arch, "sudo pacman -S --needed --noconfirm shadow", "sudo sysctl -w a.b=1", "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann"},
		{SUSE, "sudo zypper --non-interactive install shadow", "sudo sysctl -w a.b=1", "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann"},
		{Alpine, "doas apk add shadow-subids", "doas sysctl -w a.b=1", "echo ann:100000:65536 | doas tee -a /etc/subuid /etc/subgid"},
		{Unknown, "install newuidmap and newgidmap (Debian's package is uidmap)", "sudo sysctl -w a.b=1", "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann"},
	} {
		d := Distro{Family: c.family}
		for _, l := range []struct{ got, want string }{
			{d.Install(IDHelpers), c.install}, {d.Sysctl("a.b", "1"), c.sysctl}, {d.SubIDs("ann", 100000, 65536), c.subuids},
		} {
			if l.got != l.want {
				t.Errorf("%s: %q, want %q", c.family, l.got, l.want)
			}
		}
	}
}

// The key is one of the file's own, whatever table ends it, and there once however often the command is run.
func TestUseStoreKeepsTheRest(t *testing.T) {
	for name, c := range map[string]struct{ was, want string }{
		"no file": {"", "store = \"/var/lib/whisk-ann\"\n\n"},
		"a table": {"pull = 'never'\n[secrets]\nkey = 'x'\n", "store = \"/var/lib/whisk-ann\"\npull = 'never'\n[secrets]\nkey = 'x'\n"},
		"a store": {"pull = 'never'\n  store=\"/other\"\n# store\n", "store = \"/var/lib/whisk-ann\"\npull = 'never'\n# store\n"},
	} {
		home := t.TempDir()
		file := filepath.Join(home, ".config/whisk/config.toml")
		if c.was != "" {
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(c.was), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			cmd := exec.Command("/bin/sh", "-euc", UseStore("/var/lib/whisk-ann"))
			cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", name, err, out)
			}
			if got, err := os.ReadFile(file); err != nil || string(got) != c.want {
				t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
			}
		}
	}
}

func TestHintsEndWithTheDoctor(t *testing.T) {
	for hint, want := range map[string]string{"": "all that it needs: whisk doctor", "sudo x": "sudo x; all that it needs: whisk doctor"} {
		if got := More(hint); got != want {
			t.Errorf("More(%q) = %q, want %q", hint, got, want)
		}
	}
}

func TestQuoteSurvivesTheShell(t *testing.T) {
	for _, text := range []string{"", "plain/path-1.x", "0 2147483647", "it's $HOME `id` \"x\"", "a\nb", "*"} {
		out, err := exec.Command("/bin/sh", "-c", "printf %s "+Quote(text)).Output()
		if err != nil || string(out) != text {
			t.Errorf("%q quoted as %s is %q, %v", text, Quote(text), out, err)
		}
	}
	if got := Quote("plain/path-1.x"); got != "plain/path-1.x" {
		t.Errorf("a plain word is quoted as %s", got)
	}
}

func TestProfileOfThePath(t *testing.T) {
	for path, want := range map[string][2]string{
		"/usr/bin/whisk":             {"/etc/apparmor.d/whisk", `profile whisk "/usr/bin/whisk" flags=(unconfined) {`},
		"/home/ann/.local/bin/whisk": {"/etc/apparmor.d/home.ann..local.bin.whisk", `"/home/ann/.local/bin/whisk" flags=(unconfined) {`},
		"/home/a b/{x}*/whisk":       {"/etc/apparmor.d/home.a.b..x...whisk", `"/home/a b/\{x\}\*/whisk" flags=(unconfined) {`},
	} {
		if got := ProfileFile(path); got != want[0] {
			t.Errorf("file of %s: %s, want %s", path, got, want[0])
		}
		profile := AppArmorProfile(path)
		if !strings.Contains(profile, want[1]) || !strings.Contains(profile, "\n  userns,\n") {
			t.Errorf("profile of %s:\n%s\nwant %s and userns", path, profile, want[1])
		}
	}
}
