package remedy

import (
	"io/fs"
	"slices"
	"strings"
)

// Family is a distribution and what is derived from it, as far as commands differ. The zero value is one that is not
// known, for which the commands of several are named.
type Family string

// The families.
const (
	Unknown Family = ""
	Debian  Family = "debian" // and Ubuntu, Mint …
	Fedora  Family = "fedora" // and Red Hat, CentOS, Alma, Rocky
	Arch    Family = "arch"
	SUSE    Family = "suse" // openSUSE Leap and Tumbleweed, SLE
	Alpine  Family = "alpine"
)

// System is what of os-release(5) the commands depend on.
type System struct {
	ID, Name string // "ubuntu", "Ubuntu 24.04.1 LTS"; empty when not known
	Family   Family
}

// Read reads os-release(5) below root. A machine without one is the zero System.
func Read(root fs.FS) System {
	for _, path := range []string{"etc/os-release", "usr/lib/os-release"} {
		if text, err := fs.ReadFile(root, path); err == nil {
			return parse(string(text))
		}
	}
	return System{}
}

func parse(text string) System {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			fields[key] = strings.Trim(value, `"'`)
		}
	}
	s := System{ID: fields["ID"], Name: fields["PRETTY_NAME"]}
	ids := append([]string{s.ID}, strings.Fields(fields["ID_LIKE"])...)
	for _, f := range []struct {
		family Family
		ids    []string
	}{
		{Debian, []string{"debian", "ubuntu"}},
		{Fedora, []string{"fedora", "rhel", "centos"}},
		{Arch, []string{"arch", "archlinux"}},
		{SUSE, []string{"suse", "opensuse"}},
		{Alpine, []string{"alpine"}},
	} {
		if slices.ContainsFunc(ids, func(id string) bool { return slices.Contains(f.ids, id) }) {
			s.Family = f.family
			break
		}
	}
	return s
}

// sudo is how a person becomes root for one command.
func (s System) sudo() string {
	if s.Family == Alpine {
		return "doas " // Alpine installs no sudo; doas is its documented way
	}
	return "sudo "
}

// installer is the command that installs packages without a question, for scripts, and the one that people type.
func (s System) installer() (typed, script string) {
	switch s.Family {
	case Debian:
		return "apt-get install", "apt-get install -y"
	case Fedora:
		return "dnf install", "dnf install -y"
	case Arch:
		return "pacman -S --needed", "pacman -S --needed --noconfirm"
	case SUSE:
		return "zypper install", "zypper --non-interactive install"
	case Alpine:
		return "apk add", "apk add"
	}
	return "", ""
}

// mapper is the package that newuidmap(1) is in.
func (s System) mapper() string {
	switch s.Family {
	case Debian:
		return "uidmap"
	case Fedora:
		return "shadow-utils"
	case Arch, SUSE:
		return "shadow"
	case Alpine:
		return "shadow-uidmap"
	}
	return ""
}
