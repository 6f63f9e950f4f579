package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// check looks at what apps say about each other, and completes the project.
func (l *loader) check() {
	for _, a := range l.apps {
		if a.node.kind == unstable.Table && a.node.index["image"] == nil && !l.broken {
			l.fail(a.offset, "", "app %q has no image", a.app.Name)
		}
		l.targets(a)
	}
	l.publishedTwice()
	l.dependencies()
	l.reach()
	l.usedVolumes()
	l.longNames()
	for _, a := range l.apps {
		l.project.Apps = append(l.project.Apps, a.app)
	}
}

// targets refuses two mounts on one path.
func (l *loader) targets(a *appPlaces) {
	seen := map[string]int{}
	for i, m := range a.app.Mounts {
		if at, twice := seen[m.Target]; twice {
			l.fail(a.mounts[i], "", "%q is already the target of the mount on line %d", m.Target, l.line(at))
			continue
		}
		seen[m.Target] = a.mounts[i]
	}
}

// publishedTwice refuses a host port that two entries ask for.
func (l *loader) publishedTwice() {
	type place struct {
		port   Port
		app    string
		offset int
	}
	var all []place
	for _, a := range l.apps {
		for i, p := range a.app.Ports {
			next := place{p, a.app.Name, a.ports[i]}
			for _, before := range all {
				if before.port.Overlaps(p) {
					l.fail(next.offset, "", "host port %s is already published by app %q, line %d", commonPorts(before.port, p), before.app, l.line(before.offset))
					break
				}
			}
			all = append(all, next)
		}
	}
}

// commonPorts says which host ports two overlapping ports share.
func commonPorts(p, q Port) string {
	first := max(int(p.Host), int(q.Host))
	last := min(int(p.Host)+int(p.Count), int(q.Host)+int(q.Count)) - 1
	if first == last {
		return fmt.Sprintf("%d/%s", first, p.Protocol)
	}
	return fmt.Sprintf("%d-%d/%s", first, last, p.Protocol)
}

// dependencies refuses unknown apps in depends_on, and circles.
func (l *loader) dependencies() {
	index := make(map[string]int, len(l.apps))
	names := make([]string, len(l.apps))
	for i, a := range l.apps {
		index[a.app.Name], names[i] = i, a.app.Name
	}
	for _, a := range l.apps {
		for i, name := range a.app.DependsOn {
			if _, ok := index[name]; !ok && !l.broken {
				l.fail(a.depends[i], didYouMean(name, names), "there is no app %q", clip(name))
			}
		}
	}
	const onPath, done = 1, 2
	state := make([]int, len(l.apps))
	var path []string
	var visit func(i int)
	visit = func(i int) {
		state[i] = onPath
		path = append(path, names[i])
		for n, name := range l.apps[i].app.DependsOn {
			j, ok := index[name]
			switch {
			case !ok || state[j] == done:
			case state[j] == onPath:
				circle := append(slices.Clone(path[slices.Index(path, name):]), name)
				l.fail(l.apps[i].depends[n], "leave one of them away", "the apps depend on each other in a circle: %s", strings.Join(circle, " → "))
			default:
				visit(j)
			}
		}
		path = path[:len(path)-1]
		state[i] = done
	}
	for i := range l.apps {
		if state[i] == 0 {
			visit(i)
		}
	}
}

// usedVolumes adds the volumes that are mounted without a table [volume.NAME]. One that almost has the name of a
// declared volume that nobody mounts is taken for a slip of the pen: it would silently begin empty.
func (l *loader) usedVolumes() {
	declared := make([]string, len(l.project.Volumes))
	for i, v := range l.project.Volumes {
		declared[i] = v.Name
	}
	idle := slices.Clone(declared)
	for _, a := range l.apps {
		for _, m := range a.app.Mounts {
			if m.Kind == MountVolume {
				idle = slices.DeleteFunc(idle, func(name string) bool { return name == m.Source })
			}
		}
	}
	for _, a := range l.apps {
		for i, m := range a.app.Mounts {
			if m.Kind != MountVolume || m.Source == "" || slices.Contains(declared, m.Source) {
				continue
			}
			if hint := didYouMean(m.Source, idle); hint != "" {
				l.fail(a.mounts[i], hint+" otherwise add [volume."+m.Source+"]", "volume %q is not declared, and a declared one of a similar name is not mounted", m.Source)
				continue
			}
			declared = append(declared, m.Source)
			l.project.Volumes = append(l.project.Volumes, Volume{Name: m.Source})
		}
	}
}

// longNames refuses names that are none any more with the project's before them, and a project that has the name of
// its folder and cannot.
func (l *loader) longNames() {
	project := l.project.Name
	remedy := "give the project a shorter name, or this"
	if !l.named {
		remedy = fmt.Sprintf("the project has its folder's name; write a shorter one at the top of the file: name = %q", clipName(project))
		if ReservedNetwork(project) && !l.broken {
			l.fail(0, `write another name at the top of the file: name = "my-`+project+`"`, "the project is called %q, as its folder is, and so is its network: the name means something else there", project)
		}
	}
	for _, a := range l.apps {
		if full := project + "-" + a.app.Name; len(full) > maxName && len(a.app.Name) <= maxName && len(project) <= maxName {
			l.fail(a.offset, remedy, "the sandbox of app %q is called %q, which is %d characters long: at most %d are allowed", clip(a.app.Name), clip(full), len(full), maxName)
		}
	}
	at := maps.Clone(l.volumeAt)
	for _, a := range l.apps {
		for i, m := range a.app.Mounts {
			if _, declared := at[m.Source]; m.Kind == MountVolume && !declared {
				at[m.Source] = a.mounts[i]
			}
		}
	}
	for _, v := range l.project.Volumes {
		if full := project + "_" + v.Name; !v.External && len(full) > maxName && len(v.Name) <= maxName && len(project) <= maxName {
			l.fail(at[v.Name], remedy, "volume %q is called %q on disk, which is %d characters long: at most %d are allowed", clip(v.Name), clip(full), len(full), maxName)
		}
	}
}

// clipName is the beginning of a project's name that leaves room for an app's.
func clipName(project string) string {
	return strings.TrimRight(project[:min(len(project), 20)], "-._")
}
