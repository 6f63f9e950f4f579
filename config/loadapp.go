package config

import (
	"fmt"
	"math"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"
)

// appPlaces remembers where an app's values stand, for the checks between apps.
type appPlaces struct {
	app     App
	offset  int   // of the name in [app.NAME]
	ports   []int // of each of app.Ports
	mounts  []int // of each of app.Mounts
	depends []int // of each of app.DependsOn
	links   []int // of each of app.Links
	aliases []int // of each of app.Aliases
	swap    *node // memory_swap's value
	node    *node // the table
	loader  *loader
	files   []string // env_file's entries, which env's follow
	tmpfs   []Mount  // tmpfs's, which mounts' precede
	tmpfsAt []int
}

// appTables reads [app.NAME].
func (l *loader) appTables(n *node) {
	if !l.is(n, unstable.Table, "app", "tables [app.NAME]") {
		return
	}
	if len(n.fields) == 0 && !l.broken {
		l.fail(n.offset, "", "there is no app; an app is a table [app.NAME] with an image")
	}
	for _, f := range n.fields {
		if err := ValidAppName(f.key); err != nil {
			l.fail(f.offset, "", "%v", err)
		}
		a := &appPlaces{app: App{Name: f.key}, offset: f.offset, node: f.value, loader: l}
		if f.value.header {
			a.offset = f.value.offset
		}
		table(&l.decoder, f.value, fmt.Sprintf("[app.%s]", clip(f.key)), appKeys(), a)
		if err := CheckMemorySwap(a.app.Memory, a.app.MemorySwap); err != nil {
			l.fail(a.swap.offset, "", "%v", err)
		}
		a.app.Env = append(a.files, a.app.Env...)
		a.app.Mounts = append(a.app.Mounts, a.tmpfs...)
		a.mounts = append(a.mounts, a.tmpfsAt...)
		l.apps = append(l.apps, a)
	}
}

// appKeys are the keys of [app.NAME].
func appKeys() []key[appPlaces] {
	const str, integer, float = unstable.String, unstable.Integer, unstable.Float
	return []key[appPlaces]{
		{"image", func(d *decoder, n *node, a *appPlaces) {
			parsed(d, n, "image", "a string", imageWord, &a.app.Image, str)
		}},
		{"platform", func(d *decoder, n *node, a *appPlaces) {
			parsed(d, n, "platform", "a string", ParsePlatform, &a.app.Platform, str)
		}},
		{"ports", func(d *decoder, n *node, a *appPlaces) { d.ports(n, a) }},
		{"mounts", func(d *decoder, n *node, a *appPlaces) { d.mounts(n, a) }},
		{"tmpfs", func(d *decoder, n *node, a *appPlaces) { d.tmpfs(n, a) }},
		{"depends_on", func(d *decoder, n *node, a *appPlaces) { d.dependsOn(n, a) }},
		{"links", func(d *decoder, n *node, a *appPlaces) { d.links(n, a) }},
		{"networks", func(d *decoder, n *node, a *appPlaces) { d.groups(n, &a.app.Networks) }},
		{"aliases", func(d *decoder, n *node, a *appPlaces) { d.aliases(n, a) }},
		{"env", func(d *decoder, n *node, a *appPlaces) { d.env(n, a) }},
		{"env_file", func(d *decoder, n *node, a *appPlaces) { d.envFiles(n, a) }},
		{"command", func(d *decoder, n *node, a *appPlaces) { a.app.Command, _ = d.words(n, "command") }},
		{"entrypoint", func(d *decoder, n *node, a *appPlaces) { a.app.Entrypoint, _ = d.words(n, "entrypoint") }},
		{"user", func(d *decoder, n *node, a *appPlaces) {
			parsed(d, n, "user", "a string or an integer", ParseUser, &a.app.User, str, integer)
		}},
		{"workdir", func(d *decoder, n *node, a *appPlaces) {
			parsed(d, n, "workdir", "a string", ParseWorkdir, &a.app.Workdir, str)
		}},
		{"hostname", func(d *decoder, n *node, a *appPlaces) {
			parsed(d, n, "hostname", "a string", func(s string) (string, error) { return s, ValidHostname(s) }, &a.app.Hostname, str)
		}},
		{"read_only", func(d *decoder, n *node, a *appPlaces) { d.boolean(n, "read_only", &a.app.ReadOnly) }},
		{"home", func(d *decoder, n *node, a *appPlaces) {
			parsed(d, n, "home", "a string", ParseHome, &a.app.Home, unstable.String)
		}},
		{"cap_add", func(d *decoder, n *node, a *appPlaces) { d.caps(n, "cap_add", &a.app.CapAdd) }},
		{"cap_drop", func(d *decoder, n *node, a *appPlaces) { d.caps(n, "cap_drop", &a.app.CapDrop) }},
		{"ulimits", func(d *decoder, n *node, a *appPlaces) { d.ulimits(n, &a.app.Ulimits) }},
		{"labels", func(d *decoder, n *node, a *appPlaces) { d.labels(n, &a.app.Labels) }},
		{"stop_signal", func(d *decoder, n *node, a *appPlaces) {
			parsed(d, n, "stop_signal", "a string or an integer", func(s string) (string, error) {
				name, _, err := ParseSignal(s)
				return name, err
			}, &a.app.StopSignal, str, integer)
		}},
		{"stop_timeout", func(d *decoder, n *node, a *appPlaces) {
			const none = math.MinInt64
			t := time.Duration(none)
			if parsed(d, n, "stop_timeout", "a string or a number of seconds", ParseStopTimeout, &t, str, integer, float); t != none {
				a.app.StopTimeout = &t
			}
		}},
		{"init", func(d *decoder, n *node, a *appPlaces) {
			on := true
			d.boolean(n, "init", &on)
			a.app.Init = &on
		}},
		{"tty", func(d *decoder, n *node, a *appPlaces) { d.boolean(n, "tty", &a.app.TTY) }},
		{"memory", func(d *decoder, n *node, a *appPlaces) {
			parsed(d, n, "memory", "a string or a number of bytes", ParseMemory, &a.app.Memory, str, integer)
		}},
		{"memory_swap", func(d *decoder, n *node, a *appPlaces) {
			a.swap = n
			parsed(d, n, "memory_swap", "a string or a number of bytes", ParseMemorySwap, &a.app.MemorySwap, str, integer)
		}},
		{"cpus", func(d *decoder, n *node, a *appPlaces) {
			parsed(d, n, "cpus", "a number", ParseCPUs, &a.app.CPUs, str, integer, float)
		}},
		{"pids", func(d *decoder, n *node, a *appPlaces) {
			parsed(d, n, "pids", "an integer", ParsePids, &a.app.Pids, str, integer)
		}},
		{"blkio_weight", func(d *decoder, n *node, a *appPlaces) {
			parsed(d, n, "blkio_weight", "an integer", ParseBlkioWeight, &a.app.BlkioWeight, str, integer)
		}},
		{"device_read_bps", func(d *decoder, n *node, a *appPlaces) { d.rates(n, "device_read_bps", ReadBPS, a) }},
		{"device_write_bps", func(d *decoder, n *node, a *appPlaces) { d.rates(n, "device_write_bps", WriteBPS, a) }},
		{"device_read_iops", func(d *decoder, n *node, a *appPlaces) { d.rates(n, "device_read_iops", ReadIOPS, a) }},
		{"device_write_iops", func(d *decoder, n *node, a *appPlaces) { d.rates(n, "device_write_iops", WriteIOPS, a) }},
		{"restart", func(d *decoder, n *node, a *appPlaces) {
			parsed(d, n, "restart", "a string", ParseRestart, &a.app.Restart, str)
		}},
		{"extra_hosts", func(d *decoder, n *node, a *appPlaces) { d.extraHosts(n, &a.app.ExtraHosts) }},
		{"ready", func(d *decoder, n *node, a *appPlaces) { d.ready(n, &a.app.Ready) }},
		{"egress", func(d *decoder, n *node, a *appPlaces) { d.egress(n, &a.app.Egress) }},
		{"host_ports", func(d *decoder, n *node, a *appPlaces) {
			a.app.HostPorts = []uint16{} // none is not the same as what the network says
			d.hostPorts(n, &a.app.HostPorts)
		}},
	}
}

// imageWord only sees to it that an image is a word; what a reference means is the image room's to say.
func imageWord(s string) (string, error) {
	if s == "" || hasControl(s) || strings.ContainsAny(s, " ") {
		return "", fmt.Errorf("image %q is not a reference, such as docker.io/library/nginx:1.27", clip(s))
	}
	return s, nil
}

// ParsePids reads a limit of processes and threads: a number, where 0 and -1 are none.
func ParsePids(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case err != nil || n < -1 || n > math.MaxInt32:
		return 0, fmt.Errorf("pids %q is not a number of processes from 1 to %d", clip(s), math.MaxInt32)
	case n == -1:
		return 0, nil
	}
	return n, nil
}

// ParseUser reads user[:group], names or numbers, as the image's own USER.
func ParseUser(s string) (string, error) {
	user, group, grouped := strings.Cut(s, ":")
	bad := func(s string) bool { return s == "" || s[0] == '-' || hasControl(s) || strings.ContainsAny(s, " :/") }
	if bad(user) || grouped && bad(group) {
		return "", fmt.Errorf("user %q is not user[:group], names or numbers", clip(s))
	}
	return s, nil
}

// ParseWorkdir reads an absolute path in the sandbox and cleans it.
func ParseWorkdir(s string) (string, error) {
	if s == "" || s[0] != '/' || hasControl(s) {
		return "", fmt.Errorf("workdir %q is not an absolute path in the sandbox", clip(s))
	}
	return path.Clean(s), nil
}

// ParsePlatform reads os/arch[/variant]; the system is linux, and an architecture alone means that one. Two words for
// one thing become one: x86_64 is amd64, aarch64 is arm64, and so are amd64/v1 and arm64/v8, the least of their kind.
func ParsePlatform(s string) (string, error) {
	parts := strings.Split(strings.ToLower(s), "/")
	if len(parts) == 1 {
		parts = []string{"linux", parts[0]}
	}
	bad := len(parts) > 3
	for _, p := range parts {
		bad = bad || p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789_-") != ""
	}
	if bad {
		return "", fmt.Errorf("platform %q: want linux/architecture, such as linux/arm64", clip(s))
	}
	if parts[0] != "linux" {
		return "", fmt.Errorf("platform %q: %s does not run here, only linux", clip(s), parts[0])
	}
	switch parts[1] {
	case "x86_64", "x86-64":
		parts[1] = "amd64"
	case "aarch64":
		parts[1] = "arm64"
	case "i386", "i686", "x86":
		parts[1] = "386"
	}
	if p := strings.Join(parts[1:], "/"); p == "amd64/v1" || p == "arm64/v8" {
		parts = parts[:2]
	}
	return strings.Join(parts, "/"), nil
}

// cutEntry cuts KEY=VALUE.
func cutEntry(entry string) (key, value string) {
	key, value, _ = strings.Cut(entry, "=")
	return key, value
}

// shown is how faults name a file that whisk.toml speaks of.
func (l *loader) shown(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(l.nameDir, path)
}
