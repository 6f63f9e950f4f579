package config

import (
	"reflect"
	"testing"
)

func TestReachOfApps(t *testing.T) {
	p := load(t, `
[app.web]
image = "x"
depends_on = ["api"]
links = ["cache"]
aliases = ["WWW", "shop.test"]
[app.api]
image = "x"
networks = ["default", "back"]
[app.cache]
image = "x"
[app.db]
image = "x"
networks = ["back"]
[network]
isolate = true
`)
	if !p.Isolate {
		t.Error("isolate is lost")
	}
	for i, want := range []App{
		{Name: "web", DependsOn: []string{"api"}, Links: []string{"cache"}, Aliases: []string{"www", "shop.test"}},
		{Name: "api", Networks: []string{"default", "back"}}, {Name: "cache"}, {Name: "db", Networks: []string{"back"}},
	} {
		want.Image = "x"
		if !reflect.DeepEqual(p.Apps[i], want) {
			t.Errorf("got  %+v\nwant %+v", p.Apps[i], want)
		}
	}
}
