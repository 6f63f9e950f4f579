package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"
)

// ports reads the list of published ports.
func (d *decoder) ports(n *node, a *appPlaces) {
	d.list(n, "ports", `strings, such as "8080:80"`, func(item *node) {
		var p Port
		if parsed(d, item, "a port", "a string or an integer", ParsePort, &p, unstable.String, unstable.Integer); p.Count > 0 {
			a.app.Ports = append(a.app.Ports, p)
			a.ports = append(a.ports, item.offset)
		}
	})
}

// mounts reads the list of binds and volumes. A file that is shared by many should not make folders by a slip of the
// pen, so unlike -v it does not set Create.
func (d *decoder) mounts(n *node, a *appPlaces) {
	d.list(n, "mounts", `strings, such as "./site:/srv:ro"`, func(item *node) {
		var m Mount
		parse := func(s string) (Mount, error) { return ParseMount(s, d.dir, d.home) }
		if parsed(d, item, "a mount", "a string", parse, &m, unstable.String); m.Target != "" {
			m.Create = false
			a.app.Mounts = append(a.app.Mounts, m)
			a.mounts = append(a.mounts, item.offset)
		}
	})
}

// strings reads a string or a list of strings.
func (d *decoder) strings(n *node, what string, each func(n *node, s string)) {
	items := []*node{n}
	if n.kind == unstable.Array {
		items = n.items
	} else if n.kind != unstable.String {
		d.wrongType(n, what, "a string or a list of strings")
		return
	}
	for _, item := range items {
		if s, ok := d.str(item, "an entry of "+what); ok {
			each(item, s)
		}
	}
}

// tmpfs reads one or more memory file systems.
func (d *decoder) tmpfs(n *node, a *appPlaces) {
	d.strings(n, "tmpfs", func(item *node, s string) {
		m, err := ParseTmpfs(s)
		if err != nil {
			d.fail(item.offset, "", "%v", err)
			return
		}
		a.tmpfs = append(a.tmpfs, m)
		a.tmpfsAt = append(a.tmpfsAt, item.offset)
	})
}

// rates reads rates of devices, PATH:RATE.
func (d *decoder) rates(n *node, key string, kind RateKind, a *appPlaces) {
	d.strings(n, key, func(item *node, s string) {
		all, err := AddDeviceRate(a.app.DeviceRates, kind, s)
		if err != nil {
			d.fail(item.offset, "", "%v", err)
			return
		}
		a.app.DeviceRates = all
	})
}

// dependsOn reads the apps that must be ready first.
func (d *decoder) dependsOn(n *node, a *appPlaces) {
	d.list(n, "depends_on", "names of apps", func(item *node) {
		s, ok := d.str(item, "an entry of depends_on")
		switch {
		case !ok:
		case s == a.app.Name:
			d.fail(item.offset, "", "app %q depends on itself", s)
		case slices.Contains(a.app.DependsOn, s):
			d.fail(item.offset, "", "%q is named twice", s)
		default:
			a.app.DependsOn = append(a.app.DependsOn, s)
			a.depends = append(a.depends, item.offset)
		}
	})
}

// env reads the environment.
func (d *decoder) env(n *node, a *appPlaces) {
	add := func(offset int, s string) {
		entry, err := ParseEnv(s, d.lookup)
		if err != nil {
			d.fail(offset, "", "%v", err)
		} else {
			a.app.Env = append(a.app.Env, entry)
		}
	}
	d.pairs(n, "env", "KEY=VALUE",
		func(n *node, s string) { add(n.offset, s) },
		func(f *field, value string) {
			if err := envKey(f.key); err != nil {
				d.fail(f.offset, "", "%v", err)
				return
			}
			add(f.value.offset, f.key+"="+value)
		})
}

// envFiles reads the files that env_file names.
func (d *decoder) envFiles(n *node, a *appPlaces) {
	d.strings(n, "env_file", func(item *node, s string) {
		path := s
		if s == "" || hasControl(s) {
			d.fail(item.offset, "", "env_file %q is not a path", clip(s))
			return
		}
		if strings.HasPrefix(s, "~") {
			var err error
			if path, err = hostPath(s, d.dir, d.home); err != nil {
				d.fail(item.offset, "", "env_file: %v", err)
				return
			}
		}
		absolute := path
		if !filepath.IsAbs(path) {
			absolute = filepath.Join(d.dir, path)
		}
		data, err := readFile(absolute)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			d.fail(item.offset, "", "env_file %q does not exist", clip(s))
			return
		case err != nil:
			d.fail(item.offset, "", "reading env_file %q: %s", clip(s), fileFault(err))
			return
		}
		entries, faults := parseEnvFile(a.loader.shown(path), data, d.lookup)
		d.errs = append(d.errs, faults...)
		a.files = append(a.files, entries...)
	})
}

// caps reads a list of capabilities.
func (d *decoder) caps(n *node, what string, into *[]string) {
	d.list(n, what, "capabilities", func(item *node) {
		var name string
		if parsed(d, item, "an entry of "+what, "a string", ParseCap, &name, unstable.String); name != "" && !slices.Contains(*into, name) {
			*into = append(*into, name)
		}
	})
}

// ulimits reads resource limits: a table name = limit, where a limit is a number, "soft:hard" or { soft, hard }, or a
// list of name=soft[:hard].
func (d *decoder) ulimits(n *node, into *[]Ulimit) {
	add := func(n *node, u Ulimit, err error) {
		if err != nil {
			d.fail(n.offset, "", "%v", err)
			return
		}
		if slices.ContainsFunc(*into, func(v Ulimit) bool { return v.Name == u.Name }) {
			d.fail(n.offset, "", "ulimit %q is given twice", u.Name)
			return
		}
		*into = append(*into, u)
	}
	switch n.kind {
	case unstable.Array:
		for _, item := range n.items {
			if s, ok := d.str(item, "an entry of ulimits"); ok {
				u, err := ParseUlimit(s)
				add(item, u, err)
			}
		}
	case unstable.Table:
		for _, f := range n.fields {
			values, ok := d.softHard(f)
			if ok {
				u, err := parseUlimit(f.key, values)
				add(f.value, u, err)
			}
		}
	default:
		d.wrongType(n, "ulimits", "a table or a list of name=soft:hard strings")
	}
}

// softHard reads a limit's values as parseUlimit takes them.
func (d *decoder) softHard(f *field) (string, bool) {
	what := "ulimits." + clip(f.key)
	if f.value.kind != unstable.Table {
		return d.scalar(f.value, what, "an integer, a string or { soft, hard }", unstable.String, unstable.Integer)
	}
	type pair struct{ soft, hard string }
	same := func(s string) (string, error) { return s, nil }
	var p pair
	table(d, f.value, what, []key[pair]{
		{"soft", func(d *decoder, n *node, p *pair) {
			parsed(d, n, what+".soft", "an integer", same, &p.soft, unstable.Integer, unstable.String)
		}},
		{"hard", func(d *decoder, n *node, p *pair) {
			parsed(d, n, what+".hard", "an integer", same, &p.hard, unstable.Integer, unstable.String)
		}},
	}, &p)
	if f.value.index["soft"] == nil || f.value.index["hard"] == nil {
		d.fail(f.value.offset, "", "%s needs both soft and hard", what)
	}
	return p.soft + ":" + p.hard, p.soft != "" && p.hard != ""
}

// labels reads a table or a list of key=value.
func (d *decoder) labels(n *node, into *map[string]string) {
	labels := map[string]string{}
	add := func(offset int, s string) {
		key, value, err := ParseLabel(s)
		if err != nil {
			d.fail(offset, "", "%v", err)
			return
		}
		labels[key] = value
	}
	d.pairs(n, "labels", "key=value",
		func(n *node, s string) { add(n.offset, s) },
		func(f *field, value string) {
			if strings.Contains(f.key, "=") {
				d.fail(f.offset, "", "label %q: a key holds no =", clip(f.key))
				return
			}
			add(f.offset, f.key+"="+value)
		})
	*into = labels
}

// extraHosts reads a table name = address, or a list of name:address.
func (d *decoder) extraHosts(n *node, into *[]Host) {
	add := func(offset int, h Host, err error) {
		if err != nil {
			d.fail(offset, "", "%v", err)
			return
		}
		*into = append(*into, h)
	}
	d.pairs(n, "extra_hosts", "name:address",
		func(n *node, s string) {
			h, err := ParseHost(s)
			add(n.offset, h, err)
		},
		func(f *field, value string) {
			h, err := parseHost(f.key, value)
			add(f.value.offset, h, err)
		})
}

// ready reads how whisk finds out that an app serves.
func (d *decoder) ready(n *node, into **Ready) {
	r := &Ready{Interval: 200 * time.Millisecond, Timeout: time.Minute}
	faults := len(d.errs)
	table(d, n, "ready", readyKeys(), r)
	if n.kind != unstable.Table || len(d.errs) > faults {
		return
	}
	tries := 0
	for _, f := range n.fields {
		if f.key != "interval" && f.key != "timeout" {
			if tries++; tries == 2 {
				d.fail(f.offset, "", "ready has more than one of tcp, http, cmd and log")
			}
		}
	}
	switch {
	case tries == 0:
		d.fail(n.offset, "", "ready needs one of tcp, http, cmd and log")
	case n.index["interval"] == nil:
		r.Interval = min(r.Interval, r.Timeout)
	case r.Interval > r.Timeout:
		d.fail(n.offset, "", "ready tries every %v, but gives up after %v", r.Interval, r.Timeout)
	}
	*into = r
}

// readyKeys are the keys of ready.
func readyKeys() []key[Ready] {
	const str, integer, float = unstable.String, unstable.Integer, unstable.Float
	return []key[Ready]{
		{"tcp", func(d *decoder, n *node, r *Ready) {
			parsed(d, n, "ready.tcp", "a port", appPort, &r.TCP, str, integer)
		}},
		{"http", func(d *decoder, n *node, r *Ready) {
			parsed(d, n, "ready.http", "a string, such as \":80/health\"", readyURL, &r.HTTP, str)
		}},
		{"cmd", func(d *decoder, n *node, r *Ready) {
			words, ok := d.words(n, "ready.cmd")
			if ok && len(words) == 0 {
				d.fail(n.offset, "", "ready.cmd is empty")
			}
			r.Cmd = words
		}},
		{"log", func(d *decoder, n *node, r *Ready) {
			parsed(d, n, "ready.log", "a regular expression", logPattern, &r.Log, str)
		}},
		{"interval", func(d *decoder, n *node, r *Ready) {
			parsed(d, n, "ready.interval", "a string or a number of seconds", positiveDuration, &r.Interval, str, integer, float)
		}},
		{"timeout", func(d *decoder, n *node, r *Ready) {
			parsed(d, n, "ready.timeout", "a string or a number of seconds", positiveDuration, &r.Timeout, str, integer, float)
		}},
	}
}

func appPort(s string) (uint16, error) {
	n, err := portNumber(s)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q is not a number from 1 to 65535", clip(s))
	}
	return n, nil
}

func readyURL(s string) (string, error) {
	port, path, ok := strings.Cut(strings.TrimPrefix(s, ":"), "/")
	if _, err := appPort(port); err != nil || !ok || !strings.HasPrefix(s, ":") || hasControl(path) || strings.Contains(path, " ") {
		return "", fmt.Errorf("ready.http %q: want :port/path, such as :80/health", clip(s))
	}
	return s, nil
}

func logPattern(s string) (string, error) {
	if s == "" {
		return "", errors.New("ready.log is empty; every line would match")
	}
	if _, err := regexp.Compile(s); err != nil {
		return "", fmt.Errorf("ready.log: %w", err)
	}
	return s, nil
}

func positiveDuration(s string) (time.Duration, error) {
	d, err := ParseDuration(s)
	if err == nil && d == 0 {
		return 0, errors.New("a duration of 0; want at least a millisecond or so")
	}
	return d, err
}
