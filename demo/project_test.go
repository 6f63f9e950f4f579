package demo

import (
	"testing"

	"github.com/whisk-sandbox/whisk/config"
)

func TestProject(t *testing.T) {
	p := Project("visits", 0)
	apps := map[string]config.App{}
	for _, a := range p.Apps {
		apps[a.Name] = a
		if a.Image != Image || a.Ready == nil || a.Ready.HTTP != ":8080/health" {
			t.Errorf("%s: image %q, ready %+v", a.Name, a.Image, a.Ready)
		}
	}
	web, store := apps["web"], apps["store"]
	if len(web.Ports) != 1 || !web.Ports[0].HostIP.IsLoopback() || web.Ports[0].Host != 0 || web.Ports[0].App != appPort || len(store.Ports) != 0 {
		t.Errorf("ports: web %+v, store %+v; want one, on loopback, of web", web.Ports, store.Ports)
	}
	if len(web.DependsOn) != 1 || web.DependsOn[0] != "store" {
		t.Errorf("web depends on %q", web.DependsOn)
	}
	if len(store.Mounts) != 1 || store.Mounts[0].Source != "visits" || len(p.Volumes) != 1 || p.Volumes[0].Name != "visits" {
		t.Errorf("mounts %+v, volumes %+v; want the volume of that name", store.Mounts, p.Volumes)
	}
	if p.Egress != "none" {
		t.Errorf("egress %q, want none", p.Egress)
	}
	if other := Project("visits", 9000); other.Apps[0].Ports[0].Host != 9000 {
		t.Errorf("port: got %d, want 9000", other.Apps[0].Ports[0].Host)
	}
}
