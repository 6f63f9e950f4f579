package remedy

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Fix mends one thing. The zero value is a thing that nothing typed on this machine mends.
type Fix struct {
	Line   string   // what a person types or does, with sudo where it takes root; one line
	Script []string // the same for a script that root runs; each line may be run again without harm. Empty: not for root
}

// SysctlFile is where the script keeps settings over a boot.
const SysctlFile = "/etc/sysctl.d/60-whisk.conf"

// Sysctl sets a kernel setting. The line lasts until the next boot, the script for good.
func (s System) Sysctl(name, value string) Fix {
	line := name + "=" + value
	if strings.ContainsAny(value, " \t") {
		line = `"` + name + "=" + value + `"`
	}
	return Fix{Line: s.sudo() + "sysctl -w " + line, Script: []string{
		"setting " + name + " " + quote(value),
	}}
}

// Helpers installs newuidmap(1) and newgidmap(1).
func (s System) Helpers() Fix {
	typed, script := s.installer()
	if typed == "" {
		return Fix{
			Line:   "sudo apt-get install uidmap (Debian, Ubuntu), sudo dnf install shadow-utils (Fedora)",
			Script: []string{"echo 'install the package that has newuidmap: uidmap, shadow-utils or shadow' >&2"},
		}
	}
	return Fix{Line: s.sudo() + typed + " " + s.mapper(), Script: []string{
		"command -v newuidmap >/dev/null && command -v newgidmap >/dev/null || " + script + " " + s.mapper(),
	}}
}

// SubIDs grants a user size ids from start on, of users and of groups, each where it is asked for.
func (s System) SubIDs(user string, start, size uint64, users, groups bool) Fix {
	var flags, lines []string
	var script []string
	last := strconv.FormatUint(start+size-1, 10)
	for _, f := range []struct {
		on         bool
		flag, file string
	}{{users, "--add-subuids", "/etc/subuid"}, {groups, "--add-subgids", "/etc/subgid"}} {
		if !f.on {
			continue
		}
		entry := fmt.Sprintf("%s:%d:%d", user, start, size)
		flags = append(flags, fmt.Sprintf("%s %d-%s", f.flag, start, last))
		lines = append(lines, f.file)
		script = append(script, fmt.Sprintf("grep -qxFe %s %s 2>/dev/null || printf '%%s\\n' %[1]s >>%[2]s", quote(entry), f.file))
	}
	line := s.sudo() + "usermod " + strings.Join(flags, " ") + " " + quote(user)
	if s.Family == Alpine { // whose usermod, if it is there, is in a package of its own
		line = fmt.Sprintf("echo %s | doas tee -a %s", quote(fmt.Sprintf("%s:%d:%d", user, start, size)), strings.Join(lines, " "))
	}
	return Fix{Line: line, Script: script}
}

// Setuid gives helpers their power back.
func (s System) Setuid(paths ...string) Fix {
	words := make([]string, 0, len(paths))
	for _, p := range paths {
		words = append(words, quote(p))
	}
	all := strings.Join(words, " ")
	return Fix{Line: s.sudo() + "chmod u+s " + all, Script: []string{"chown root:root " + all, "chmod u+s " + all}}
}

// Descriptors raises how many files a user may have open, from the next login on.
func (s System) Descriptors(user string) Fix {
	const file = "/etc/security/limits.d/whisk.conf" // limits.conf(5)
	entry := quote(user + " hard nofile 524288")
	return Fix{Line: "echo " + entry + " | " + s.sudo() + "tee " + file + ", and log in again", Script: []string{
		"mkdir -p /etc/security/limits.d", "printf '%s\\n' " + entry + " >" + file,
	}}
}

// Clock sets the clock from the network.
func (s System) Clock() Fix {
	if s.Family == Alpine {
		return Fix{Line: "doas setup-ntp busybox", Script: []string{"setup-ntp busybox"}}
	}
	return Fix{Line: s.sudo() + "timedatectl set-ntp true", Script: []string{"timedatectl set-ntp true"}}
}

// Modules loads kernel modules, now and at each boot.
func (s System) Modules(names ...string) Fix {
	script := make([]string, 0, len(names)+1)
	for _, n := range names {
		script = append(script, "modprobe "+n)
	}
	return Fix{Line: s.sudo() + "modprobe -a " + strings.Join(names, " "), Script: append(script,
		"printf '%s\\n' "+strings.Join(names, " ")+" >/etc/modules-load.d/whisk.conf")}
}

// Linger lets a user's services go on after logout.
func (s System) Linger(user string) Fix {
	return Fix{Line: s.sudo() + "loginctl enable-linger " + quote(user), Script: []string{"loginctl enable-linger " + quote(user)}}
}

// Delegate has systemd hand all controllers to its users' managers. It takes a new login.
func (s System) Delegate() Fix {
	const file = "/etc/systemd/system/user@.service.d/whisk.conf"
	return Fix{Line: s.sudo() + "systemctl edit user@.service, with [Service] and Delegate=cpu cpuset io memory pids; then log in again", Script: []string{
		"mkdir -p /etc/systemd/system/user@.service.d",
		"printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' >" + file,
		"systemctl daemon-reload",
	}}
}

// ProfileFile is where the AppArmor profile of whisk goes.
const ProfileFile = "/etc/apparmor.d/whisk"

// AppArmor lets this binary, and nothing else, have its user namespaces.
func (s System) AppArmor(binary string) Fix {
	script := []string{"cat >" + ProfileFile + " <<'PROFILE'"}
	script = append(script, strings.Split(strings.TrimSuffix(Profile(binary), "\n"), "\n")...)
	return Fix{
		Line:   "whisk doctor --apparmor-profile | " + s.sudo() + "tee " + ProfileFile + " && " + s.sudo() + "apparmor_parser -r " + ProfileFile,
		Script: append(script, "PROFILE", "apparmor_parser -r "+ProfileFile),
	}
}

// Profile is an AppArmor profile that gives the program at this path the right to make user namespaces (apparmor.d(5),
// "userns", ABI 4.0) and takes nothing from it.
func Profile(binary string) string {
	return fmt.Sprintf(`abi <abi/4.0>,
include <tunables/global>

profile whisk %s flags=(unconfined) {
  userns,

  include if exists <local/whisk>
}
`, pattern(binary))
}

// pattern is a path that matches itself alone: what AppArmor's globs mean something by is escaped.
func pattern(path string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range path {
		if r < ' ' || r == 0x7f {
			r = '?' // which matches it; as it is, it could end the line or the script's document
		} else if strings.ContainsRune(`\"*?[]{}^,@`, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	b.WriteByte('"')
	return b.String()
}

// Script is one script for root that does all the fixes, each once. It says what it does, stops at the first failure,
// and may be run again.
func Script(fixes []Fix) string {
	var b strings.Builder
	b.WriteString(`#!/bin/sh
# Written by whisk doctor --fix, for root: read it, then run it. It may be run again.
set -eu
[ "$(id -u)" = 0 ] || { echo 'this is for root: sudo sh FILE' >&2; exit 1; }
umask 022
`)
	body := 0
	settings := false
	done := map[string]bool{}
	for _, f := range fixes {
		text := strings.Join(f.Script, "\n")
		if text == "" || done[text] {
			continue
		}
		if strings.HasPrefix(text, "setting ") && !settings {
			settings = true
			b.WriteString(`
# setting NAME VALUE: now, and at each boot
setting() {
	mkdir -p /etc/sysctl.d
	touch ` + SysctlFile + `
	{ grep -v "^$1 *=" ` + SysctlFile + ` || true; echo "$1 = $2"; } >` + SysctlFile + `.new
	mv ` + SysctlFile + `.new ` + SysctlFile + `
	sysctl -w "$1=$2"
}
`)
		}
		done[text] = true
		body++
		fmt.Fprintf(&b, "\n# %s\n%s\n", comment(f.Line), text)
	}
	if body == 0 {
		b.WriteString("\n# Nothing on this machine is root's to mend.\n")
	}
	return b.String()
}

// comment keeps text on the line of a comment.
func comment(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

// quote makes one word of sh(1).
func quote(word string) string {
	if word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-=") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
