package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/whisk-sandbox/whisk/remedy"
)

func seccomp(v View) []Finding {
	switch {
	case v.Seccomp != "":
		return []Finding{problem("seccomp", v.Seccomp, remedy.Fix{Line: "boot a kernel with CONFIG_SECCOMP_FILTER, or do without this wall: whisk run --allow-missing=seccomp"})}
	case !v.UserNotify:
		return []Finding{note("seccomp", "filters, without user notification (kernel 5.0)", "with one id, start scripts that drop to another user do not stop with a word", remedy.Fix{Line: "boot a kernel of 5.0 or later"})}
	}
	return []Finding{ok("seccomp", "filters and user notification")}
}

func landlock(v View) []Finding {
	switch {
	case v.Landlock != "":
		return []Finding{problem("landlock", v.Landlock, remedy.Fix{Line: "start the outer container with --security-opt seccomp=unconfined, or do without this wall: whisk run --allow-missing=landlock"})}
	case v.LandlockABI == 0:
		return []Finding{note("landlock", "the kernel has none, or it is switched off", "the second wall round a sandbox's files", remedy.Fix{Line: "boot with lsm=landlock,… before what the kernel's lsm= has, on 5.13 or later"})}
	}
	return []Finding{ok("landlock", fmt.Sprintf("ABI %d", v.LandlockABI))}
}

func tproxy(v View) []Finding {
	const name = "nf_tables"
	if v.Inside == nil {
		return nil
	}
	const slow, mixed = "a kernel's speed: a user-mode TCP carries connections", "isolate, and networks between sandboxes"
	if v.Inside.Tables != "" {
		return []Finding{note(name, v.Inside.Tables, slow+"; "+mixed,
			v.system().Modules("nf_tables", "nft_tproxy", "nft_socket", "nft_ct", "nft_reject_inet"))}
	}
	var missing, modules, lost []string
	for _, t := range []struct{ thing, module, lost, said string }{
		{"tproxy", "nft_tproxy", slow, v.Inside.TProxy},
		{"socket", "nft_socket", slow, v.Inside.Socket},
		{"connection tracking", "nft_ct", mixed, v.Inside.Ct},
		{"reject", "nft_reject_inet", mixed, v.Inside.Reject},
	} {
		if t.said == "" {
			continue
		}
		missing, modules = append(missing, t.thing+": "+t.said), append(modules, t.module)
		if !slices.Contains(lost, t.lost) {
			lost = append(lost, t.lost)
		}
	}
	if missing != nil {
		return []Finding{note(name, strings.Join(missing, "; "), strings.Join(lost, "; "), v.system().Modules(modules...))}
	}
	return []Finding{ok(name, "with tproxy, socket, connection tracking and reject")}
}

// controllers are those that a sandbox's limits are held by.
func controllers() []string { return []string{"cpu", "memory", "pids"} }

func cgroups(v View) []Finding {
	const name = "cgroups"
	const lost = "limits of memory, processor and processes are not held"
	if !v.exists("sys/fs/cgroup/cgroup.controllers") {
		fix := remedy.Fix{Line: "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line"}
		if v.system().Family == remedy.Alpine {
			fix.Line = "set rc_cgroup_mode=\"unified\" in /etc/rc.conf, and doas rc-update add cgroups"
		}
		found := "version 1"
		if !v.exists("sys/fs/cgroup/memory") && !v.exists("sys/fs/cgroup/unified") {
			found = "none mounted at /sys/fs/cgroup"
		}
		return []Finding{note(name, found, lost, fix)}
	}
	path := ownGroup(v.read("proc/self/cgroup"))
	uid := strconv.FormatUint(uint64(v.User.UID), 10)
	if manager := "user.slice/user-" + uid + ".slice/user@" + uid + ".service"; v.exists("sys/fs/cgroup/" + manager) {
		path = manager // what systemd delegates is here, wherever this login's shell is
	}
	have := strings.Fields(v.read(strings.TrimSuffix("sys/fs/cgroup/"+path, "/") + "/cgroup.controllers"))
	var missing []string
	for _, c := range controllers() {
		if !slices.Contains(have, c) {
			missing = append(missing, c)
		}
	}
	if missing != nil {
		fix := remedy.Fix{Line: "start whisk in a login of systemd's: machinectl shell " + who(v.User) + "@"}
		if v.exists("run/systemd/system") {
			fix = v.system().Delegate()
		}
		return []Finding{note(name, "version 2, without the controllers "+strings.Join(missing, ", "), lost, fix)}
	}
	return []Finding{ok(name, "version 2, with "+strings.Join(have, ", "))}
}

// ownGroup is the version 2 line of /proc/self/cgroup without its leading slash.
func ownGroup(text string) string {
	for l := range strings.Lines(text) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(l), "0::/"); ok {
			return path
		}
	}
	return ""
}

func userSystemd(v View) []Finding {
	const name = "user systemd"
	if !v.exists("run/systemd/system") {
		return []Finding{ok(name, "no systemd runs here; sandboxes need none")}
	}
	if v.User.UID == 0 {
		return nil
	}
	uid := strconv.FormatUint(uint64(v.User.UID), 10)
	if !v.exists("run/user/" + uid + "/bus") {
		return []Finding{note(name, "no manager runs for "+who(v.User), "cgroups of a sandbox's own", v.system().Linger(who(v.User)))}
	}
	if v.User.Name == "" || !v.exists("var/lib/systemd/linger/"+v.User.Name) {
		return []Finding{note(name, "runs, and linger is off", "where logind is set to kill what a login leaves (KillUserProcesses), sandboxes end at logout", v.system().Linger(who(v.User)))}
	}
	return []Finding{ok(name, "runs, and goes on after logout")}
}

func pings(v View) []Finding {
	const name = "ping"
	text := v.sysctl("net/ipv4/ping_group_range")
	var from, to uint32
	if n, err := fmt.Sscan(text, &from, &to); n != 2 || err != nil {
		return []Finding{note(name, "net.ipv4.ping_group_range cannot be read", "ping to hosts outside", remedy.Fix{})}
	}
	for _, g := range v.Groups {
		if from <= g && g <= to {
			return []Finding{ok(name, "allowed to group "+strconv.FormatUint(uint64(g), 10))}
		}
	}
	return []Finding{note(name, fmt.Sprintf("net.ipv4.ping_group_range is %d %d, without your groups", from, to), "ping to hosts outside", v.system().Sysctl("net.ipv4.ping_group_range", "0 2147483647"))}
}

func lowPorts(v View) []Finding {
	const name = "low ports"
	start, err := strconv.Atoi(v.sysctl("net/ipv4/ip_unprivileged_port_start"))
	if err != nil {
		start = 1024 // the setting came with 4.11
	}
	if start <= 80 || v.User.UID == 0 {
		return []Finding{ok(name, "from 80 on yours to publish")}
	}
	return []Finding{note(name, fmt.Sprintf("below %d closed to you", start), "publishing 80 and 443", v.system().Sysctl("net.ipv4.ip_unprivileged_port_start", "80"))}
}

// Below these, one development server with its file watcher uses them up (webpack, vite).
const (
	fewWatches   = 65536
	fewInstances = 128
	fewFiles     = 4096 // descriptors: a keeper takes two for each connection
)

func inotify(v View) []Finding {
	const name = "inotify"
	var all []Finding
	for _, s := range []struct {
		key    string
		least  int
		mended string
	}{{"max_user_watches", fewWatches, "524288"}, {"max_user_instances", fewInstances, "512"}} {
		n, err := strconv.Atoi(v.sysctl("fs/inotify/" + s.key))
		if err != nil || n >= s.least {
			continue
		}
		all = append(all, note(name, fmt.Sprintf("fs.inotify.%s is %d", s.key, n), "programs that watch many files", v.system().Sysctl("fs.inotify."+s.key, s.mended)))
	}
	if all == nil {
		all = append(all, ok(name, v.sysctl("fs/inotify/max_user_watches")+" watches"))
	}
	return all
}

func descriptors(v View) []Finding {
	const name = "descriptors"
	found := fmt.Sprintf("at most %d open", v.Descriptors)
	if v.Descriptors < fewFiles {
		return []Finding{note(name, found, "many connections at once", v.system().Descriptors(who(v.User)))}
	}
	return []Finding{ok(name, found)}
}

func clock(v View) []Finding {
	const name = "clock"
	if v.Now.Before(v.Built) {
		return []Finding{note(name, v.Now.UTC().Format("2006-01-02 15:04")+" UTC, which is before whisk was installed", "registries' certificates are refused", v.system().Clock())}
	}
	return []Finding{ok(name, v.Now.UTC().Format("2006-01-02 15:04")+" UTC")}
}
