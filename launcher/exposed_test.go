package launcher

import (
	"strings"
	"testing"

	"github.com/whisk-sandbox/whisk/config"
)

func TestExposedPorts(t *testing.T) {
	web, err := config.ParsePort("8080:80")
	if err != nil {
		t.Fatal(err)
	}
	got, err := ExposedPorts(map[string]struct{}{"80/tcp": {}, "80/udp": {}, "443": {}, "9000-9001/tcp": {}}, []config.Port{web})
	if err != nil {
		t.Fatal(err)
	}
	type port struct {
		host, app uint16
		protocol  string
	}
	want := []port{{8080, 80, "tcp"}, {0, 443, "tcp"}, {0, 80, "udp"}, {0, 9000, "tcp"}, {0, 9001, "tcp"}}
	if len(got) != len(want) {
		t.Fatalf("%+v, want %+v", got, want)
	}
	for i, p := range got {
		if (port{p.Host, p.App, p.Protocol}) != want[i] || !p.HostIP.IsLoopback() {
			t.Errorf("%+v, want %+v on the loopback", p, want[i])
		}
	}
	if _, err := ExposedPorts(map[string]struct{}{"1-65535/tcp": {}}, nil); err == nil || !strings.Contains(err.Error(), "65535 ports") {
		t.Errorf("all ports there are: %v", err)
	}
	for _, bad := range []string{"x/tcp", "0/tcp", "70000", "80/ip", "127.0.0.1:80/tcp", "1:2/tcp"} {
		if got, err := ExposedPorts(map[string]struct{}{bad: {}}, nil); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
}
