package cli

import (
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
