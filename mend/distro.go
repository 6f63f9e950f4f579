package mend

import (
	"io/fs"
	"os"
	"strings"
)

// Family is the way a distribution installs packages and words its commands.
type Family string

// The families.
const (
	Debian  Family = "debian"
	Ubuntu  Family = "ubuntu"
	Fedora  Family = "fedora"
	Arch    Family = "arch"
	SUSE    Family = "opensuse"
	Alpine  Family = "alpine"
	Unknown Family = ""
)

// Distro is a distribution. The zero value is one that is not known.
type Distro struct {
	Name   string `json:"name"` // PRETTY_NAME of os-release(5), "" if it has none
	Family Family `json:"family,omitempty"`
}

// Here is the distribution of this machine.
func Here() Distro { return Read(os.DirFS("/")) }

// Read finds the distribution in a machine's files, in the order of os-release(5). Without one it is the zero value.
func Read(root fs.FS) Distro {
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		if text, err := fs.ReadFile(root, name); err == nil {
			return parse(string(text))
		}
	}
	return Distro{}
}

func parse(text string) Distro {
	var d Distro
	var ids []string
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		value = strings.Trim(value, `"'`)
		switch key {
		case "PRETTY_NAME":
			d.Name = value
		case "ID":
			ids = append([]string{value}, ids...)
		case "ID_LIKE":
			ids = append(ids, strings.Fields(value)...)
		}
	}
	for _, id := range ids {
		if d.Family = family(id); d.Family != Unknown {
			break
		}
	}
	return d
}

func family(id string) Family {
	switch id {
	case "debian", "ubuntu", "arch", "alpine", "fedora":
		return Family(id)
	case "rhel", "centos":
		return Fedora
	case "opensuse", "suse", "sles", "opensuse-leap", "opensuse-tumbleweed":
		return SUSE
	case "archlinux":
		return Arch
	}
	return Unknown
}
