package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
)

func TestPsTable(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	record := func(id, name, image string, state launcher.State, ago time.Duration) launcher.Record {
		return launcher.Record{
			Spec:  launcher.Spec{ID: id, Name: name, App: config.App{Image: image}},
			State: state, CreatedAt: now.Add(-ago),
		}
	}
	web := record("0123456789ab", "shop-web", "nginx:1.27", launcher.Running, 3*time.Minute)
	web.Project, web.App.Name, web.IPv4, web.Ready = "shop", "web", "10.1.2.3", true
	web.Ports = []launcher.PublishedPort{
		{HostIP: "127.0.0.1", HostPort: 8080, AppPort: 80, Protocol: "tcp"},
		{HostIP: "::1", HostPort: 9000, AppPort: 9000, Protocol: "udp"},
		{HostIP: "::1", HostPort: 9001, AppPort: 9001, Protocol: "udp"},
		{HostIP: "::1", HostPort: 9002, AppPort: 9003, Protocol: "udp"},
	}
	db := record("112233445566", "shop-db", "registry.example.org:5000/team/postgres:17", launcher.Running, 30*time.Hour)
	db.Project, db.App.Name, db.App.Ready = "shop", "db", &config.Ready{TCP: 5432}
	odd := record("aabbccddeeff", "odd\x1b[31m", "busybox", launcher.Exited, 20*24*time.Hour)
	odd.ExitCode = 137
	var b strings.Builder
	if err := psTable([]launcher.Record{web, db, odd}, now, false).write(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/ps.golden", b.String())
}

func TestAgeAndSize(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 90 * time.Second: "90s", 2 * time.Minute: "2m", 119 * time.Minute: "119m",
		2 * time.Hour: "2h", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 13 * 24 * time.Hour: "13d", 21 * 24 * time.Hour: "3w",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%v): got %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1 kB", 4_400_000: "4.4 MB", 123_456_789: "123 MB", 2_000_000_000: "2 GB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d): got %q, want %q", n, got, want)
		}
	}
}

func TestPortsNamed(t *testing.T) {
	ports := []launcher.PublishedPort{{HostPort: 1, AppPort: 53, Protocol: "tcp"}, {HostPort: 2, AppPort: 53, Protocol: "udp"}}
	for name, want := range map[string]uint16{"53": 1, "53/tcp": 1, "53/udp": 2} {
		if got := portsNamed(ports, name); len(got) != 1 || got[0].HostPort != want {
			t.Errorf("%s: got %v, want host port %d", name, got, want)
		}
	}
	for _, name := range []string{"54", "053", "", "53/sctp"} {
		if got := portsNamed(ports, name); got != nil {
			t.Errorf("%q: got %v, want none", name, got)
		}
	}
}

func TestJSONKeepsTerminalsCalm(t *testing.T) {
	var b strings.Builder
	in := map[string]string{"a": "x\x1b[31m\u009b0m\x7fé"}
	if err := writeJSON(&b, in); err != nil {
		t.Fatal(err)
	}
	if want := "{\n  \"a\": \"x\\u001b[31m\\u009b0m\\u007fé\"\n}\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
