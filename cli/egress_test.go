package cli

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
)

func TestFlowTable(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	lines := []launcher.FlowLine{
		{Time: at, App: "web", Verdict: launcher.FlowAllowed, Protocol: "tcp", Name: "api.example.org", Also: []string{"b.example.org"}, Address: "2001:db8::1", Port: 443, Sent: 12, Received: 3456789, Count: 1},
		{Time: at, App: "web", Verdict: launcher.FlowDenied, Protocol: "icmp", Address: "192.0.2.1", Why: "egress is none", Count: 30},
		{Time: at, App: "web", Verdict: launcher.FlowDenied, Why: "more than 50 destinations in a second", Count: 900},
		{Time: at, Verdict: launcher.FlowLost, Count: 7},
		{Time: at, App: "web", Verdict: launcher.FlowAllowed, Protocol: "udp", Name: "evil\x1b[2J.example.org", Address: "192.0.2.1", Port: 53, Count: 1},
	}
	var b strings.Builder
	p := &flowPrinter{out: &b, zone: time.UTC}
	if err := p.print(lines...); err != nil {
		t.Fatal(err)
	}
	want := `TIME                 APP  VERDICT  PROTOCOL  NAME                         ADDRESS            SENT  RECEIVED  WHY
2026-11-23 12:00:00  web  allowed  tcp       api.example.org (+1)         [2001:db8::1]:443  12 B  3.46 MB
2026-11-23 12:00:00  web  denied   icmp      -                            192.0.2.1          0 B   0 B       egress is none (30 times)
2026-11-23 12:00:00  web  denied   -         -                            -                  0 B   0 B       more than 50 destinations in a second (900 times)
2026-11-23 12:00:00  -    lost     -         -                            -                  0 B   0 B       came too fast to be written down: 7
2026-11-23 12:00:00  web  allowed  udp       evil\x1b[2J.example.org      192.0.2.1:53       0 B   0 B
`
	if got := b.String(); columns(got) != columns(want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}

	b.Reset()
	p = &flowPrinter{out: &b, zone: time.UTC, follow: true}
	for _, more := range [][]launcher.FlowLine{nil, lines[:1], lines[1:2]} {
		if err := p.print(more...); err != nil {
			t.Fatal(err)
		}
	}
	rows := strings.Split(b.String(), "\n")
	if len(rows) != 4 || strings.Index(rows[0], "ADDRESS") != strings.Index(rows[1], "[2001") || strings.Index(rows[1], "[2001") != strings.Index(rows[2], "192.0.2.1") {
		t.Errorf("a table that grows has its columns elsewhere:\n%s", b.String())
	}
}

// columns is text with the width of its gaps left out.
func columns(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		out = append(out, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(out, "\n")
}

func TestLearnedLists(t *testing.T) {
	need := func(name string, port uint16) launcher.EgressNeed {
		return launcher.EgressNeed{Protocol: "tcp", Name: name, Port: port}
	}
	l := &learning{private: map[string]bool{"lone": true}, Learned: launcher.Learned{
		Network: []launcher.EgressNeed{need("a.example.org", 443), {Protocol: "udp", Addr: netip.MustParseAddr("2001:db8::1"), Port: 53}},
		Apps:    map[string][]launcher.EgressNeed{"web": {need("a.example.org", 443)}, "db": nil, "lone": {need("b.example.org", 80)}, "guest": {need("c.example.org", 80)}},
	}}
	p := &config.Project{Apps: []config.App{{Name: "web"}, {Name: "db"}}}
	var b strings.Builder
	if err := l.write(&b, p, true); err != nil {
		t.Fatal(err)
	}
	want := `# for the whole project
[network]
egress = [
  "a.example.org:443",
  "udp://[2001:db8::1]:53",
]

# or for each app
[app.db]
egress = "none"

# sandbox guest, which is not in whisk.toml
# egress = [
#   "c.example.org:80",
# ]

# sandbox lone
egress = [
  "b.example.org:80",
]

[app.web]
egress = [
  "a.example.org:443",
]
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	l.Apps = map[string][]launcher.EgressNeed{"web": {need("a.example.org", 443)}}
	if err := l.write(&b, p, false); err != nil {
		t.Fatal(err)
	}
	if want := "[app.web]\negress = [\n  \"a.example.org:443\",\n]\n"; b.String() != want {
		t.Errorf("of one app: got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestFlowSources(t *testing.T) {
	c := &call{dirs: launcher.Dirs{Data: t.TempDir(), Run: t.TempDir()}, dir: t.TempDir(), getenv: func(string) string { return "" }}
	if err := os.WriteFile(filepath.Join(c.dir, "whisk.toml"), []byte("name = \"shop\"\n[app.web]\nimage = \"host\"\n[app.db]\nimage = \"host\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lone := launcher.NewID()
	for _, r := range []launcher.Record{
		{Spec: launcher.Spec{Version: launcher.SpecVersion, ID: lone, Name: "lone", Network: lone}, State: launcher.Exited},
		{Spec: launcher.Spec{Version: launcher.SpecVersion, ID: launcher.NewID(), Name: "cut", Network: "none"}, State: launcher.Exited},
	} {
		if err := os.MkdirAll(c.dirs.Sandbox(r.ID), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := r.Write(c.dirs); err != nil {
			t.Fatal(err)
		}
	}
	launcher.NewFlowLog(c.dirs, &launcher.Spec{ID: "x", Network: "other"}).Write(launcher.FlowLine{})
	for _, f := range []struct{ words, want string }{
		{"", "shop:"},
		{"web", "shop:web"},
		{"web db", "shop:web,db"},
		{"web shop", "?"}, // nothing of shop's is written down yet
		{"lone", lone + ":lone"},
		{"lone web", lone + ":lone shop:web"},
		{"other", "other:"},
		{"cut", "?"},
		{"nobody", "?"},
		{"../x", "?"},
	} {
		t.Run(f.words, func(t *testing.T) {
			sources, err := c.flowSources(strings.Fields(f.words), "")
			var got []string
			for _, s := range sources {
				got = append(got, s.network+":"+strings.Join(s.apps, ","))
			}
			if err != nil {
				got = []string{"?"}
			}
			if strings.Join(got, " ") != f.want {
				t.Errorf("got %v (%v), want %s", got, err, f.want)
			}
		})
	}
	launcher.NewFlowLog(c.dirs, &launcher.Spec{ID: "x", Network: "shop"}).Write(launcher.FlowLine{})
	if s, err := c.flowSources([]string{"web", "shop"}, ""); err != nil || len(s) != 1 || len(s[0].apps) != 0 {
		t.Errorf("an app and its whole network: got %+v, %v", s, err)
	}
}
