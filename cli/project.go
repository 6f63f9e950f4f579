package cli

import (
	"fmt"
	"maps"
	"slices"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
)

// projectSpecs asks for the apps of a project: those that are named and all they depend on, or all when none is
// named. ids gives each its id.
func projectSpecs(p *config.Project, names []string, ids func() string) ([]launcher.Spec, error) {
	wanted := map[string]bool{}
	var want func(name string) error
	want = func(name string) error {
		if wanted[name] {
			return nil
		}
		i := slices.IndexFunc(p.Apps, func(a config.App) bool { return a.Name == name })
		if i < 0 {
			known := ""
			for _, a := range p.Apps {
				known += ", " + a.Name
			}
			return usage("apps are "+known[min(2, len(known)):], "project %q has no app %q", p.Name, name)
		}
		wanted[name] = true
		for _, d := range p.Apps[i].DependsOn {
			if err := want(d); err != nil {
				return err
			}
		}
		return nil
	}
	for _, name := range names {
		if err := want(name); err != nil {
			return nil, err
		}
	}
	var specs []launcher.Spec
	for _, app := range p.Apps {
		if len(names) > 0 && !wanted[app.Name] {
			continue
		}
		app.Mounts = slices.Clone(app.Mounts)
		if app.HostPorts == nil {
			app.HostPorts = p.HostPorts
		}
		for i, m := range app.Mounts {
			if m.Kind == config.MountVolume && m.Source != "" {
				app.Mounts[i].Source = volumeName(p, m.Source)
			}
		}
		specs = append(specs, launcher.Spec{
			Version: launcher.SpecVersion, ID: ids(), Name: p.Name + "-" + app.Name, Project: p.Name,
			App: app, Network: p.Name, Egress: p.Egress, Isolate: p.Isolate,
		})
	}
	return specs, nil
}

// projectLabel tells which project has made a volume. Two could come to the same name for theirs: a_b's c and a's b_c.
const projectLabel = "whisk.project"

// makeWay sees to what a project's sandboxes expect to find: names that are free, external volumes, and volumes of its
// own with the labels that whisk.toml gives them.
func (c *call) makeWay(p *config.Project, specs []launcher.Spec) error {
	records, err := launcher.Records(c.dirs)
	if err != nil {
		return err
	}
	if err := namesFree(specs, records); err != nil {
		return err
	}
	if err := c.dirs.Make(); err != nil {
		return err
	}
	for _, v := range p.Volumes {
		name := volumeName(p, v.Name)
		mounts := func(m config.Mount) bool { return m.Kind == config.MountVolume && m.Source == name }
		if !slices.ContainsFunc(specs, func(s launcher.Spec) bool { return slices.ContainsFunc(s.App.Mounts, mounts) }) {
			continue
		}
		if v.External {
			_, err = launcher.InspectVolume(c.dirs, name)
			if err != nil && launcher.AsError(err).Kind == launcher.KindNotFound {
				err = usage("whisk volume create "+name, "volume %q is external, and there is none of that name", name)
			}
		} else {
			err = c.ownVolume(p.Name, name, v.Labels)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ownVolume makes a project's volume, unless it is there.
func (c *call) ownVolume(project, name string, labels map[string]string) error {
	all := map[string]string{projectLabel: project}
	maps.Copy(all, labels)
	v, err := launcher.EnsureVolume(c.dirs, name, all)
	if err != nil {
		return err
	}
	if owner := v.Labels[projectLabel]; othersVolume(project, *v) {
		return usage("give the volume or the project another name", "volume %q is that of project %q", name, owner)
	}
	return nil
}

// othersVolume says that a volume is that of another project. One that was made by hand is whose name says so.
func othersVolume(project string, v launcher.Volume) bool {
	owner := v.Labels[projectLabel]
	return owner != "" && owner != project
}

// namesFree refuses a sandbox whose name another project has taken: a-b's c and a's b-c have the same.
func namesFree(specs []launcher.Spec, records []launcher.Record) error {
	for _, s := range specs {
		for _, r := range records {
			if r.Name != s.Name || r.Project == s.Project {
				continue
			}
			of := "sandbox " + r.ID
			if r.Project != "" {
				of = fmt.Sprintf("app %q of project %q", r.App.Name, r.Project)
			}
			return usage("give the app or the project another name, or: whisk rm "+r.ID, "app %q is to be sandbox %q, a name that %s has", s.App.Name, s.Name, of)
		}
	}
	return nil
}

// volumeName is a project's volume as it is called on disk.
func volumeName(p *config.Project, name string) string {
	if slices.ContainsFunc(p.Volumes, func(v config.Volume) bool { return v.Name == name && v.External }) {
		return name
	}
	return p.Name + "_" + name
}

// ownVolumes are the named volumes that a project makes and may remove, as they are called on disk.
func ownVolumes(p *config.Project) []string {
	var names []string
	add := func(name string) {
		if full := volumeName(p, name); full != name && !slices.Contains(names, full) {
			names = append(names, full)
		}
	}
	for _, v := range p.Volumes {
		add(v.Name)
	}
	for _, a := range p.Apps {
		for _, m := range a.Mounts {
			if m.Kind == config.MountVolume && m.Source != "" {
				add(m.Source)
			}
		}
	}
	return names
}

// projectRecords are the sandboxes of a project, oldest first.
func projectRecords(d launcher.Dirs, project string) ([]*launcher.Record, error) {
	all, err := launcher.Records(d)
	if err != nil {
		return nil, err
	}
	var own []*launcher.Record
	for i := range all {
		if all[i].Project == project {
			own = append(own, &all[i])
		}
	}
	return own, nil
}
