package mend

import (
	"fmt"
	"path"
	"strings"
)

// Package is something to install, under the name that each family has for it.
type Package int

// The packages.
const (
	IDHelpers Package = iota // newuidmap and newgidmap
	AppArmor                 // apparmor_parser
	UserBus                  // a D-Bus for each login
	Getsubids                // getsubids
)

// command is the package's name and what installs it; "" where the family has none.
func (d Distro) command(p Package) (install, name string) {
	names := map[Package]map[Family]string{
		IDHelpers: {Debian: "uidmap", Ubuntu: "uidmap", Fedora: "shadow-utils", Arch: "shadow", SUSE: "shadow", Alpine: "shadow-subids"},
		Getsubids: {Debian: "uidmap", Ubuntu: "uidmap", Fedora: "shadow-utils-subid", Arch: "shadow", SUSE: "shadow", Alpine: "shadow-subids"},
		UserBus:   {Debian: "dbus-user-session", Ubuntu: "dbus-user-session"}, // the others' dbus or dbus-broker has it
		AppArmor:  {Debian: "apparmor", Ubuntu: "apparmor", Arch: "apparmor", SUSE: "apparmor-parser", Alpine: "apparmor"},
	}
	installs := map[Family]string{
		Debian: "apt-get install -y", Ubuntu: "apt-get install -y", Fedora: "dnf install -y", Arch: "pacman -S --needed --noconfirm",
		SUSE: "zypper --non-interactive install", Alpine: "apk add",
	}
	return installs[d.Family], names[p][d.Family]
}

// Install is the line that installs a package.
func (d Distro) Install(p Package) string {
	if install, name := d.command(p); install != "" && name != "" {
		return d.Root(install + " " + name)
	}
	what := map[Package]string{IDHelpers: "newuidmap and newgidmap", AppArmor: "apparmor_parser", UserBus: "a D-Bus for each login", Getsubids: "getsubids"}[p]
	return "install " + what + " (Debian's package is " + map[Package]string{IDHelpers: "uidmap", AppArmor: "apparmor", UserBus: "dbus-user-session", Getsubids: "uidmap"}[p] + ")"
}

// InstallAsRoot is Install for a shell that is root's; empty where nothing is known.
func (d Distro) InstallAsRoot(p Package) string {
	install, name := d.command(p)
	if install == "" || name == "" {
		return ""
	}
	line := install + " " + name
	if d.Family == Debian || d.Family == Ubuntu {
		// A machine that was made of an image may never have fetched the lists, apt-get(8).
		return line + " || { apt-get update && " + line + "; }"
	}
	return line
}

// Root is a command line as an ordinary user types it: Alpine has doas(1), the others sudo(8).
func (d Distro) Root(line string) string {
	if d.Family == Alpine {
		return "doas " + line
	}
	return "sudo " + line
}

// Sysctl sets a kernel parameter, sysctl(8), until the next boot.
func (d Distro) Sysctl(name, value string) string {
	return d.Root("sysctl -w " + name + "=" + Quote(value))
}

// SubIDs gives a user count ids from first on, of users and of groups. Alpine's usermod(8) is busybox's, which knows
// no sub-ids.
func (d Distro) SubIDs(user string, first, count uint64) string {
	if d.Family == Alpine {
		return fmt.Sprintf("echo %s | doas tee -a /etc/subuid /etc/subgid", Quote(SubIDLine(user, first, count)))
	}
	return fmt.Sprintf("sudo usermod --add-subuids %d-%d --add-subgids %[1]d-%[2]d %s", first, first+count-1, Quote(user))
}

// MoveSubIDs takes from a user what somebody else has been given as well, and gives count ids from first on in its place.
func (d Distro) MoveSubIDs(user string, first, count uint64, uids, gids [][2]uint64) string {
	if d.Family == Alpine {
		// In a pattern for sed(1), whatever could be more than a letter of a name is any letter.
		pattern := strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
				return r
			}
			return '.'
		}, user)
		return "doas sed -i " + Quote("/^"+pattern+":/d") + " /etc/subuid /etc/subgid && " + d.SubIDs(user, first, count)
	}
	line := "sudo usermod"
	for _, r := range uids {
		line += fmt.Sprintf(" --del-subuids %d-%d", r[0], r[1])
	}
	for _, r := range gids {
		line += fmt.Sprintf(" --del-subgids %d-%d", r[0], r[1])
	}
	return line + strings.TrimPrefix(d.SubIDs(user, first, count), "sudo usermod")
}

// SubIDLine is an entry of subuid(5) and subgid(5).
func SubIDLine(user string, first, count uint64) string {
	return fmt.Sprintf("%s:%d:%d", user, first, count)
}

// SetUID gives a helper its power back.
func (d Distro) SetUID(file string) string { return d.Root("chmod u+s " + Quote(file)) }

// SUIDMount takes nosuid from a mounted file system.
func (d Distro) SUIDMount(mountpoint string) string {
	return d.Root("mount -o remount,suid " + Quote(mountpoint))
}

// Modules loads kernel modules, modprobe(8).
func (d Distro) Modules(names ...string) string {
	return d.Root("modprobe -a " + strings.Join(names, " "))
}

// KernelModules is the package with the kernel's modules that are not on disk: distributions keep what small machines do
// without in one of its own.
func (d Distro) KernelModules(release string) string {
	switch d.Family {
	case Debian: // linux-image-cloud-amd64 has fewer
		return d.Root("apt-get install -y linux-image-$(dpkg --print-architecture)") + " && start the machine anew with it"
	case Ubuntu:
		return d.Root("apt-get install -y linux-modules-extra-" + Quote(release))
	case Fedora:
		return d.Root("dnf install -y kernel-modules-" + Quote(release))
	case SUSE: // kernel-default-base has fewer
		return d.Root("zypper --non-interactive install kernel-default") + " && start the machine anew with it"
	case Alpine: // linux-virt has fewer
		return d.Root("apk add linux-lts") + " && start the machine anew with it"
	}
	return "install your kernel's package of further modules"
}

// FastModules are what TCP needs that the kernel carries.
func FastModules() []string { return []string{"nf_tables", "nft_tproxy", "nft_socket"} }

// ApartModules are what keeps sandboxes of one network apart.
func ApartModules() []string { return []string{"nf_tables", "nft_ct", "nft_reject_inet"} }

// Profile installs the AppArmor profile that whisk prints for itself.
func (d Distro) Profile(whisk string) string {
	file := ProfileFile(whisk)
	return Quote(whisk) + " doctor --apparmor-profile | " + d.Root("tee "+Quote(file)) + " >/dev/null && " + d.Root("apparmor_parser -r "+Quote(file))
}

// LiftProfile switches a profile of AppArmor's off, now and after the next boot, by its file (aa-disable(8)).
func (d Distro) LiftProfile(file string) string {
	return d.Root("apparmor_parser -R "+Quote(file)) + " && " + d.Root("mkdir -p "+disabled) + " && " + d.Root("ln -sf "+Quote(file)+" "+disabled+"/")
}

// LiftAsRoot is LiftProfile for a shell that is root's. It may be run again: of a profile that has been removed,
// apparmor_parser(8) makes an error.
func LiftAsRoot(file string) []string {
	return []string{
		"[ -L " + Quote(disabled+"/"+path.Base(file)) + " ] || apparmor_parser -R " + Quote(file),
		"mkdir -p " + disabled, "ln -sf " + Quote(file) + " " + disabled + "/",
	}
}

// disabled has a link to each profile that is not to be loaded at the next boot.
const disabled = "/etc/apparmor.d/disable"

// ProfileFile is where the profile of a program belongs: AppArmor's files are named by the path with dots for slashes.
func ProfileFile(whisk string) string {
	if whisk == packaged {
		return "/etc/apparmor.d/whisk"
	}
	name := strings.Map(func(r rune) rune {
		if r == '/' || r < 0x21 || r > 0x7e || strings.ContainsRune("\\'\"`$*?[]{}()<>|&;!#~", r) {
			return '.'
		}
		return r
	}, strings.Trim(whisk, "/"))
	return "/etc/apparmor.d/" + strings.TrimLeft(name, ".") // the parser passes over hidden files
}

// EveryGroup is the net.ipv4.ping_group_range that leaves nobody out, icmp(7).
const EveryGroup = "0 2147483647"

// packaged is where whisk's packages install it, with the profile "whisk".
const packaged = "/usr/bin/whisk"

// AppArmorProfile lets one program make user namespaces and confines it in nothing else: it is what Ubuntu ships for
// browsers (kernel.apparmor_restrict_unprivileged_userns, AppArmor 4.0).
func AppArmorProfile(whisk string) string {
	name := ""
	if whisk == packaged {
		name = "profile whisk "
	}
	// The path is a pattern, apparmor.d(5): what would be one in it is taken as it stands.
	var pattern strings.Builder
	for _, r := range whisk {
		if strings.ContainsRune(`*?[]{}^\"@`, r) {
			pattern.WriteByte('\\')
		}
		pattern.WriteRune(r)
	}
	return fmt.Sprintf(`# Lets whisk make user namespaces, and keeps it from nothing.
abi <abi/4.0>,
include <tunables/global>

%s"%s" flags=(unconfined) {
  userns,

  include if exists <local/%s>
}
`, name, pattern.String(), path.Base(ProfileFile(whisk)))
}

// More ends a hint with where everything is said that this machine withholds; the hint may be empty.
func More(hint string) string {
	if hint == "" {
		return "all that it needs: whisk doctor"
	}
	return hint + "; all that it needs: whisk doctor"
}

// Quote makes one word of text for sh(1), untouched where it is one already.
func Quote(text string) string {
	plain := text != "" && strings.IndexFunc(text, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("%+,-./:=@_", r))
	}) < 0
	if plain {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
