package cli

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/whisk-sandbox/whisk/config"
)

func shop() *config.Project {
	volume := func(name string) config.Mount {
		return config.Mount{Kind: config.MountVolume, Source: name, Target: "/" + name}
	}
	return &config.Project{
		Name: "shop", Egress: "none",
		Apps: []config.App{
			{Name: "web", Image: "nginx", DependsOn: []string{"db"}, Mounts: []config.Mount{
				{Kind: config.MountBind, Source: "/site", Target: "/site"}, volume("cache"), volume("shared"), volume(""),
			}},
			{Name: "db", Image: "postgres", Mounts: []config.Mount{volume("pgdata")}},
			{Name: "mail", Image: "mail"},
		},
		Volumes: []config.Volume{{Name: "pgdata"}, {Name: "shared", External: true}, {Name: "unused"}},
	}
}

func TestProjectSpecs(t *testing.T) {
	n := 0
	specs, err := projectSpecs(shop(), []string{"web"}, func() string { n++; return fmt.Sprintf("%012d", n) })
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/project.golden", string(lean(t, specs))+"\n")
	all, err := projectSpecs(shop(), nil, func() string { return "" })
	if err != nil || len(all) != 3 {
		t.Errorf("without names: got %d apps, %v, want 3", len(all), err)
	}
	if p := shop(); p.Apps[0].Mounts[1].Source != "cache" {
		t.Error("the project itself was changed")
	}
	if _, err := projectSpecs(shop(), []string{"wbe"}, func() string { return "" }); err == nil || !strings.Contains(err.Error(), `no app "wbe"`) {
		t.Errorf("got %v", err)
	}
}

func TestVolumesThatDownRemoves(t *testing.T) {
	got := ownVolumes(shop())
	want := []string{"shop_pgdata", "shop_unused", "shop_cache"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
