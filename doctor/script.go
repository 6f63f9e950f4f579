package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/whisk-sandbox/whisk/mend"
)

// repair is what root can do about a finding, in the words of the script's own functions.
type repair struct {
	sysctls  [][2]string
	modules  []string
	packages []packaged
	subIDs   string // an entry for both files
	profile  bool   // AppArmor's, for whisk's own file
	lines    []string
	optional []string // what loosens the machine for others too, or is a matter of taste: printed as a comment
}

// packaged is a package that is needed if a program of it is not there; always, if it is for none.
type packaged struct {
	name    mend.Package
	program string
}

func (r *repair) sysctl(name, value string) { r.sysctls = append(r.sysctls, [2]string{name, value}) }
func (r *repair) install(p mend.Package, program string) {
	r.packages = append(r.packages, packaged{p, program})
}
func (r *repair) add(lines ...string) { r.lines = append(r.lines, lines...) }

// functions are the script's: each may be called again without effect.
const functions = `#!/bin/sh
# Mends what "whisk doctor" found. Read it, then run it as root; it may be run again. Each mend is tried, whatever
# became of the others; those that failed are named at the end.
set -u
failed=
bad=0

# ended CODE CHECK: what to say at the end of a mend.
ended() {
	[ "$1" = 0 ] || failed="$failed${failed:+, }$2"
}

# line FILE LINE: the file has the line.
line() {
	mkdir -p "$(dirname "$1")" && touch "$1" || return
	grep -qxF -e "$2" "$1" && return
	[ -z "$(tail -c 1 "$1")" ] || echo >> "$1"
	printf '%s\n' "$2" >> "$1"
}

# keep NAME VALUE: the kernel parameter has the value, now and after the next boot; the last file in order has the last word.
keep() {
	line /etc/sysctl.d/zz-whisk.conf "$1 = $2" || bad=1
	sysctl -q -w "$1=$2" || bad=1
}

# load MODULE: the kernel module is loaded, now and after the next boot.
load() {
	line /etc/modules-load.d/whisk.conf "$1" || bad=1
	modprobe "$1" || bad=1
}
`

const ending = `
[ -z "$failed" ] || { echo "not mended: $failed" >&2; exit 1; }
`

// Script is one shell script for root that mends all that root can mend. It is idempotent, and does nothing where
// nothing is to be mended. Its exit code is 1 where a mend failed, and the others were tried.
func (r Report) Script() string {
	var b strings.Builder
	b.WriteString(functions)
	var done []string // modules and packages that several findings want
	optional := false
	for _, f := range r.Findings {
		lines := f.repair.commands(r.Distro, r.exe)
		lines = slices.DeleteFunc(lines, func(l string) bool {
			if slices.Contains(done, l) {
				return true
			}
			done = append(done, l)
			return false
		})
		if len(lines)+len(f.repair.optional) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n# %s: %s\n", f.Check, comment(f.Found))
		if len(lines) > 0 {
			// Not "( ... ) || ended": behind || the shell would go on past what fails.
			fmt.Fprintf(&b, "( set -e\n%s\nexit $bad )\nended $? %s\n", strings.Join(lines, "\n"), mend.Quote(f.Check))
		}
		for _, l := range f.repair.optional {
			optional = true
			b.WriteString("# " + comment(l) + "\n")
		}
	}
	if optional {
		b.WriteString("\n# Commands behind a # are a matter of taste: take it away from those that you want.\n")
	}
	if len(done) == 0 {
		b.WriteString("\n# There is nothing that root must mend.\n")
	}
	b.WriteString(ending)
	return b.String()
}

// comment keeps text on one line.
func comment(text string) string { return strings.Join(strings.Fields(text), " ") }

func (r repair) commands(d mend.Distro, exe string) []string {
	var out []string
	for _, p := range r.packages {
		if line := d.InstallAsRoot(p.name); line != "" && p.program == "" {
			out = append(out, line)
		} else if line != "" {
			out = append(out, "command -v "+p.program+" >/dev/null || "+line)
		} else if p.program != "" {
			out = append(out, "command -v "+p.program+" >/dev/null || { echo 'install "+p.program+" first' >&2; exit 1; }")
		}
	}
	for _, s := range r.sysctls {
		out = append(out, "keep "+s[0]+" "+mend.Quote(s[1]))
	}
	if r.subIDs != "" {
		out = append(out, "line /etc/subuid "+mend.Quote(r.subIDs), "line /etc/subgid "+mend.Quote(r.subIDs))
	}
	if r.profile && !strings.ContainsRune(exe, '\n') { // which no line of a profile can hold
		file := mend.Quote(mend.ProfileFile(exe))
		if line := d.InstallAsRoot(mend.AppArmor); line != "" {
			out = append(out, "command -v apparmor_parser >/dev/null || "+line)
		}
		out = append(out, "cat > "+file+" <<'WHISK'\n"+mend.AppArmorProfile(exe)+"WHISK", "apparmor_parser -r "+file)
	}
	out = append(out, r.lines...)
	for _, m := range r.modules {
		out = append(out, "load "+m)
	}
	return out
}

// Profile is the AppArmor profile for whisk's own file, ready to be installed.
func (r Report) Profile() string { return mend.AppArmorProfile(r.exe) }
