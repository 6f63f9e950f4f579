package config

import (
	"reflect"
	"strings"
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

func TestParsePortSelector(t *testing.T) {
	for _, c := range []struct{ text, want, refused string }{
		{text: "8080", want: "8080/tcp"},
		{text: "53/udp", want: "53/udp"},
		{text: "8080:80", want: "8080:80/tcp"},
		{text: "127.0.0.1:8080", want: "127.0.0.1:8080/tcp"},
		{text: "127.0.0.1:8080:80/tcp", want: "127.0.0.1:8080:80/tcp"},
		{text: "[::1]:8080", want: "[::1]:8080/tcp"},
		{text: "[::1]:8080:80/udp", want: "[::1]:8080:80/udp"},
		{text: "8000-8009:80-89", want: "8000-8009:80-89/tcp"},
		{text: "", refused: "host port is missing"},
		{text: "0", refused: "1 to 65535"},
		{text: "x", refused: `"x" is not a number`},
		{text: "80/sctp", refused: "not tcp or udp"},
		{text: "::1:80", refused: "needs brackets"},
		{text: "[::1]", refused: "want [ip:]host"},
		{text: "a.b:80", refused: "not an IP address"},
		{text: "80:", refused: "app port is missing"},
		{text: "80-81:80", refused: "equally long"},
		{text: "80:0", refused: "equally long"},
		{text: "8\n0", refused: "control character"},
	} {
		got, err := ParsePortSelector(c.text)
		switch {
		case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)):
			t.Errorf("%q: got %v, %v; want %q", c.text, got, err, c.refused)
		case c.refused == "" && (err != nil || got.String() != c.want):
			t.Errorf("%q: got %v, %v; want %q", c.text, got, err, c.want)
		}
	}
}

func TestPortSelectorSelects(t *testing.T) {
	for _, c := range []struct {
		selector, ip string
		host, app    uint16
		protocol     string
		want         bool
	}{
		{"8080", "127.0.0.1", 8080, 80, "tcp", true},
		{"8080", "::1", 8080, 80, "tcp", true},
		{"8080", "127.0.0.1", 8080, 80, "udp", false},
		{"8080:81", "127.0.0.1", 8080, 80, "tcp", false},
		{"[::1]:8080", "127.0.0.1", 8080, 80, "tcp", false},
		{"8080-8081:80-81", "127.0.0.1", 8081, 81, "tcp", true},
		{"8080-8081:80-81", "127.0.0.1", 8081, 80, "tcp", false},
		{"8080-8081", "127.0.0.1", 8082, 82, "tcp", false},
		{"8080", "127.0.0.1", 80, 80, "tcp", false},
	} {
		s, err := ParsePortSelector(c.selector)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Selects(c.ip, c.host, c.app, c.protocol); got != c.want {
			t.Errorf("%s selects %s:%d->%d/%s: %v, want %v", c.selector, c.ip, c.host, c.app, c.protocol, got, c.want)
		}
	}
}
