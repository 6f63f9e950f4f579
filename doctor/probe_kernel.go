package doctor

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whisk-sandbox/whisk/mend"
)

// kernelAtLeast compares the release; true where it cannot be read.
func (m *Machine) kernelAtLeast(major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(m.Kernel, "%d.%d", &a, &b); n != 2 {
		return true
	}
	return a > major || a == major && b >= minor
}

func versions(m *Machine, d mend.Distro) []Finding {
	name := d.Name
	if name == "" {
		name = "a distribution without os-release"
	}
	f := Finding{Check: "versions", Level: OK, Found: fmt.Sprintf("whisk %s, kernel %s (%s), %s", m.Whisk, m.Kernel, m.Arch, name)}
	if !m.kernelAtLeast(5, 13) {
		f.Level, f.Cause, f.Lost = Problem, "kernel", noSandbox+": whisk needs Linux 5.13"
		f.Mend = "install a newer kernel of your distribution's and start the machine anew"
	}
	return []Finding{f}
}

func seccompFilters(m *Machine, _ mend.Distro) []Finding {
	f := Finding{Check: "seccomp", Level: OK, Found: "filters and user notification"}
	switch actions := m.sysctl("kernel.seccomp.actions_avail"); {
	case m.Seccomp != "":
		f.Level, f.Cause, f.Found = Problem, "no-seccomp", "the wall \"seccomp\" cannot be built here: "+m.Seccomp
		f.Lost, f.Mend = noSandbox, "start a kernel with CONFIG_SECCOMP_FILTER"
		if m.container() != "" {
			f.Mend = m.loosen()
		}
		if ids, err := m.system().Find(m.User); err == nil && !ids.Single { // with one id, it does more than to protect
			f.without("--allow-missing=seccomp")
		}
	case actions != "" && !strings.Contains(" "+actions+" ", " user_notif "):
		f.Level, f.Cause, f.Found = Note, "no-notification", "filters, but no user notification (kernel 5.0)"
		f.Lost = "with one id, programs that change owners fail"
	case m.Inside != nil && m.Inside.Notify != "":
		f.Level, f.Cause, f.Found = Note, "no-notification", "filters, but user notification is refused: "+m.Inside.Notify
		f.Lost, f.Mend = "with one id, servers that change to a user of their own refuse to run", m.loosen()
	case m.Inside == nil:
		f.Found = "filters"
	}
	return []Finding{f}
}

func landlockFence(m *Machine, _ mend.Distro) []Finding {
	if m.Fence != "" {
		f := Finding{Check: "landlock", Level: Problem, Cause: "landlock-refused", Found: "the wall \"landlock\" cannot be built here: " + m.Fence, Mend: m.loosen()}
		f.without("--security-opt landlock=unconfined")
		return []Finding{f}
	}
	if m.Landlock > 0 {
		return []Finding{{Check: "landlock", Level: OK, Found: fmt.Sprintf("ABI %d", m.Landlock)}}
	}
	f := Finding{Check: "landlock", Level: Note, Cause: "no-landlock", Found: "this kernel has no Landlock", Lost: "the second wall round the host's files"}
	if lsm := m.text("sys/kernel/security/lsm"); m.kernelAtLeast(5, 13) && lsm != "" && !strings.Contains(lsm, "landlock") {
		f.Found = "Landlock is not among the kernel's security modules (" + lsm + ")"
		f.Mend = "add lsm=landlock," + lsm + " to the kernel's command line and start the machine anew"
	}
	return []Finding{f}
}

// tracing: with one id, whisk moves the processes that change their user by stopping them, ptrace(2). Yama's other scopes
// allow that for want of a capability only, which the keeper has.
func tracing(m *Machine, _ mend.Distro) []Finding {
	ids, err := m.system().Find(m.User)
	if err != nil || !ids.Single {
		return nil
	}
	f := Finding{Check: "tracing", Level: Note, Lost: "with one id, servers that change to a user of their own refuse to run"}
	switch {
	case m.sysctl("kernel.yama.ptrace_scope") == "3":
		f.Cause, f.Found = "ptrace-scope", "kernel.yama.ptrace_scope is 3, which forbids ptrace to all"
		f.Mend = "mend sub-ids or id helpers instead; or take kernel.yama.ptrace_scope out of /etc/sysctl.d and start the machine anew"
	case m.Inside != nil && m.Inside.Trace != "":
		f.Cause, f.Found, f.Mend = "no-ptrace", "stopping a process is refused: "+m.Inside.Trace, m.loosen()
	default:
		return nil
	}
	return []Finding{f}
}

func nfTables(m *Machine, d mend.Distro) []Finding {
	f := Finding{Check: "nftables", Level: OK}
	if m.Inside == nil {
		f.Level, f.Found = Note, "not tried before the problem is mended"
		return []Finding{f}
	}
	const slow = "TCP goes through user mode, which is slower, and apps do not see their clients' addresses"
	var modules []string
	switch {
	case m.Inside.Tables != "":
		modules = append(mend.FastModules(), mend.ApartModules()[1:]...)
		f.Found, f.Lost = "nf_tables is not there: "+m.Inside.Tables, slow+"; isolate, links and networks of whisk.toml are refused"
	case m.Inside.TProxy != "" || m.Inside.Socket != "":
		modules = mend.FastModules()
		f.Found, f.Lost = "no tproxy expression: "+m.Inside.TProxy, slow
		if m.Inside.TProxy == "" {
			f.Found = "no socket expression: " + m.Inside.Socket
		}
	case m.Inside.Apart != "":
		modules = mend.ApartModules()
		f.Found, f.Lost = m.Inside.Apart, "isolate, links and networks of whisk.toml are refused"
	default:
		f.Found = "tables, tproxy, socket, connection tracking"
		return []Finding{f}
	}
	f.Level, f.Cause, f.Mend = Note, "nf-tables", d.Modules(modules...)
	if absent, upgraded := m.absent(modules); upgraded {
		f.Found += " (the modules of kernel " + m.Kernel + " are no longer on disk: it has been upgraded)"
		f.Mend = "start the machine anew"
		return []Finding{f}
	} else if len(absent) > 0 {
		f.Found += " (not on disk: " + strings.Join(absent, ", ") + ")"
		f.Mend = d.KernelModules(m.Kernel)
		return []Finding{f}
	}
	f.repair.modules = modules
	if files := m.withheld(modules); len(files) > 0 {
		where := strings.Join(files, ", ")
		f.Found += " (" + where + " keeps modules from loading)"
		f.Mend = "take them out of " + where + ", then: " + f.Mend
		for _, file := range files {
			f.repair.add("sed -i -E '/^[[:space:]]*(blacklist|install)[[:space:]]+(" + strings.ReplaceAll(strings.Join(modules, "|"), "_", "[-_]") + ")([[:space:]]|$)/s/^/# /' " + mend.Quote(file))
		}
	}
	return []Finding{f}
}

// withheld lists the files of modprobe.d(5) that keep modules from loading.
func (m *Machine) withheld(modules []string) []string {
	var files []string
	for _, dir := range []string{"etc/modprobe.d", "run/modprobe.d", "usr/local/lib/modprobe.d", "usr/lib/modprobe.d"} {
		for _, name := range m.list(dir) {
			if !strings.HasSuffix(name, ".conf") {
				continue
			}
			for line := range strings.Lines(m.text(dir + "/" + name)) {
				words := strings.Fields(line)
				if len(words) >= 2 && slices.Contains(modules, strings.ReplaceAll(words[1], "-", "_")) && withholds(words) {
					files = append(files, "/"+dir+"/"+name)
					break
				}
			}
		}
	}
	return files
}

// withholds tells whether a line keeps its module from loading: "install" gives a command in modprobe's place, which does
// so where it does nothing.
func withholds(words []string) bool {
	return words[0] == "blacklist" || words[0] == "install" && len(words) >= 3 && slices.Contains([]string{"false", "true"}, path.Base(words[2]))
}

// absent lists the modules that are neither built into this kernel nor on disk; upgraded tells that none of this kernel's are.
// Where no modules are kept at all, as in a container, there is no telling.
func (m *Machine) absent(modules []string) (absent []string, upgraded bool) {
	dir := "lib/modules"
	if !m.has(dir) {
		dir = "usr/lib/modules"
	}
	if len(m.list(dir)) == 0 {
		return nil, false
	}
	have := m.text(dir+"/"+m.Kernel+"/modules.dep") + "\n" + m.text(dir+"/"+m.Kernel+"/modules.builtin")
	if strings.TrimSpace(have) == "" {
		return nil, !m.has(dir + "/" + m.Kernel)
	}
	for _, name := range modules {
		if !strings.Contains(strings.ReplaceAll(have, "-", "_"), "/"+name+".ko") {
			absent = append(absent, name)
		}
	}
	return absent, false
}

// ping tells whether echo requests of apps leave the machine, icmp(7).
func ping(m *Machine, d mend.Distro) []Finding {
	text := m.sysctl("net.ipv4.ping_group_range")
	fields := strings.Fields(text)
	f := Finding{Check: "ping", Level: OK, Found: "open to you"}
	groups := []uint32{m.User.GID}
	if ids, err := m.system().Find(m.User); err == nil && ids.Single {
		groups = append(groups, m.Groups...) // with ranges, the keeper has dropped them
	}
	out := false
	if len(fields) == 2 {
		low, err1 := strconv.ParseUint(fields[0], 10, 32)
		high, err2 := strconv.ParseUint(fields[1], 10, 32)
		out = err1 == nil && err2 == nil && !slices.ContainsFunc(groups, func(g uint32) bool { return low <= uint64(g) && uint64(g) <= high })
		f.Found = fmt.Sprintf("net.ipv4.ping_group_range is %d to %d, which leaves your group %d out", low, high, m.User.GID)
	}
	switch {
	case out:
		f.Level, f.Cause, f.Lost, f.Mend = Note, "ping-range", "apps cannot ping what is outside", d.Sysctl("net.ipv4.ping_group_range", mend.EveryGroup)
		f.repair.sysctl("net.ipv4.ping_group_range", mend.EveryGroup)
	case m.Ping != "":
		f.Level, f.Cause, f.Found, f.Lost, f.Mend = Note, "ping-refused", "a socket for echo requests is refused: "+m.Ping, "apps cannot ping what is outside", m.loosen()
	default:
		f.Found = "open to you"
	}
	return []Finding{f}
}

// lowPorts tells which ports can be published.
func lowPorts(m *Machine, d mend.Distro) []Finding {
	const name = "net.ipv4.ip_unprivileged_port_start"
	f := Finding{Check: "ports", Level: OK, Found: "all can be published"}
	start, err := strconv.Atoi(m.sysctl(name))
	if err != nil {
		start = 1024 // kernels before 4.11
	}
	if start > 80 { // for root, too: its keeper is root of a user namespace of its own only
		f.Level, f.Cause, f.Found = Note, "low-ports", fmt.Sprintf("ports below %d are closed to you", start)
		f.Lost, f.Mend = "-p 80:80 is refused; 8080:80 is not", d.Sysctl(name, "80")
		f.repair.optional = append(f.repair.optional, "keep "+name+" 80 # ports from 80 on, for every user of this machine")
	} else if start > 0 {
		f.Found = fmt.Sprintf("from %d on", start)
	}
	return []Finding{f}
}

const (
	// fewInstances: a watching development server takes one or two, an editor ten; the kernel's own value is 128.
	fewInstances = 128
	// fewWatches: one for each folder of a project with its dependencies; the value of kernels before 5.11 is 8192.
	fewWatches = 16384
	// fewDescriptors: a database of a hundred connections wants that many; each network takes some of its own.
	fewDescriptors = 4096
)

// limits tells of what many apps at once run out of.
func limits(m *Machine, d mend.Distro) []Finding {
	f := Finding{Check: "limits", Level: OK}
	var found, sysctls []string
	for _, s := range []struct {
		name, what, better string
		least              uint64
	}{
		{"fs.inotify.max_user_instances", "inotify instances", "512", fewInstances},
		{"fs.inotify.max_user_watches", "inotify watches", "524288", fewWatches},
	} {
		n, err := strconv.ParseUint(m.sysctl(s.name), 10, 64)
		if err != nil {
			continue
		}
		found = append(found, fmt.Sprintf("%d %s", n, s.what))
		if n < s.least {
			sysctls = append(sysctls, d.Sysctl(s.name, s.better))
			f.repair.sysctl(s.name, s.better)
		}
	}
	found = append(found, fmt.Sprintf("%d open files", m.Descriptors))
	f.Found = strings.Join(found, ", ")
	if len(sysctls) > 0 {
		f.Level, f.Cause, f.Lost, f.Mend = Note, "inotify", "programs that watch files fail in busy projects", strings.Join(sysctls, " && ")
	}
	if m.Descriptors < fewDescriptors {
		f.Level, f.Cause = Note, "descriptors"
		f.Lost = strings.TrimPrefix(f.Lost+"; servers with many connections fail", "; ")
		file, line := d.Descriptors(m.name())
		cmd := "echo " + mend.Quote(line) + " | " + d.Root("tee -a "+file)
		if f.Then = anew; d.Family == mend.Alpine {
			f.Then = "start the machine anew"
		}
		f.Mend = strings.TrimPrefix(f.Mend+" && "+cmd, " && ")
		f.repair.add("line " + file + " " + mend.Quote(line))
	}
	return []Finding{f}
}

// farAhead is more than a whisk is used for, and less than what a clock is off whose battery is empty or whose year was typed
// wrong: registries' own certificates last a year, those of their authorities ten.
const farAhead = 10 * 365 * 24 * time.Hour

// clock: with a clock from before its own commit, whisk would find every registry's certificate not valid yet, and with one
// of long after it, none valid any more.
func clock(m *Machine, d mend.Distro) []Finding {
	f := Finding{Check: "clock", Level: OK, Found: m.Now.UTC().Format("2006-01-02 15:04 MST")}
	made := m.Built.UTC().Format("2006-01-02")
	switch {
	case m.Built.IsZero():
	case m.Now.Before(m.Built):
		f.Level, f.Found, f.Lost = Note, f.Found+", before whisk itself was made ("+made+")", "registries' certificates are not valid yet"
	case m.Now.After(m.Built.Add(farAhead)):
		f.Level, f.Found, f.Lost = Note, f.Found+", more than ten years after whisk itself was made ("+made+")", "registries' certificates are not valid any more"
	}
	if f.Level == Note {
		f.Cause = "clock"
		set := "timedatectl set-ntp true"
		if d.Family == mend.Alpine {
			set = "ntpd -nqp pool.ntp.org"
		}
		f.Mend = d.Root(set)
		f.repair.add(set)
	}
	return []Finding{f}
}

// readOnly tells whether what root mends can be kept.
func readOnly(m *Machine, d mend.Distro) []Finding {
	if !m.ReadOnlyEtc {
		return nil
	}
	return []Finding{{Check: "root", Level: Note, Cause: "read-only", Found: "/etc is read-only", Lost: "what is mended there fails, and the rest lasts until the next boot",
		Mend: d.Root("mount -o remount,rw /")}}
}

// outer tells whether whisk is in a container itself, where its host decides on what is mended elsewhere.
func outer(m *Machine, _ mend.Distro) []Finding {
	kind := m.container()
	if kind == "" {
		return nil
	}
	return []Finding{{Check: "container", Level: Note, Cause: "nested", Found: "whisk is in a container itself (" + kind + ")",
		Lost: "sysctls and modules are its host's to change", Mend: "run what is advised here on the host of the container"}}
}

// container is the engine that whisk's own container is of; empty outside of one.
func (m *Machine) container() string { return mend.Container(m.Files, m.Pod) }
