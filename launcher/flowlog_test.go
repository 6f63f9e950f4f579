package launcher

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whisk-sandbox/whisk/config"
)

// flow reads "web api.example.com 192.0.2.1:443/tcp" as a line; "-" is no name.
func flow(t *testing.T, text string) FlowLine {
	t.Helper()
	f := strings.Fields(text)
	names := strings.Split(strings.TrimPrefix(f[1], "-"), ",")
	l := FlowLine{Time: time.Now(), App: f[0], Verdict: FlowAllowed, Name: names[0], Also: names[1:], Count: 1}
	to, protocol, _ := strings.Cut(f[2], "/")
	l.Protocol, l.Address = protocol, to
	if i := strings.LastIndex(to, ":"); i >= 0 && protocol != "icmp" {
		l.Address = strings.Trim(to[:i], "[]")
		if _, err := fmt.Sscan(to[i+1:], &l.Port); err != nil {
			t.Fatal(err)
		}
	}
	if len(f) > 3 {
		l.Verdict = f[3]
	}
	return l
}

func rules(needs []EgressNeed) string {
	var out []string
	for _, n := range needs {
		out = append(out, n.String())
	}
	return strings.Join(out, " ")
}

func TestLearnEgress(t *testing.T) {
	for _, c := range []struct {
		name, flows string
		apps        []string
		network     string
		byApp       map[string]string
	}{
		{name: "nothing", byApp: map[string]string{}},
		{name: "nothing of an app", apps: []string{"web"}, byApp: map[string]string{"web": ""}},
		{
			name:    "names go before addresses, once each",
			flows:   "web api.example.com 1.1.1.1:443/tcp|web api.example.com 1.1.1.2:443/tcp|web - 1.1.1.1:443/tcp",
			network: "api.example.com:443 1.1.1.1:443",
			byApp:   map[string]string{"web": "api.example.com:443 1.1.1.1:443"},
		},
		{
			name:    "a name of the LAN's needs its address, too",
			flows:   "web nas.home.arpa 192.168.1.9:445/tcp|web nas.home.arpa [fd00::9]:445/tcp|web vpn.example.com 100.64.0.1:443/tcp",
			network: "nas.home.arpa:445 vpn.example.com:443 100.64.0.1:443 192.168.1.9:445 [fd00::9]:445",
			byApp:   map[string]string{"web": "nas.home.arpa:445 vpn.example.com:443 100.64.0.1:443 192.168.1.9:445 [fd00::9]:445"},
		},
		{
			name:    "names that share an address",
			flows:   "web b.example.com,a.example.com 1.1.1.1:443/tcp",
			network: "a.example.com:443 b.example.com:443",
			byApp:   map[string]string{"web": "a.example.com:443 b.example.com:443"},
		},
		{
			name:    "ports of the host are no rule's",
			flows:   "web host.whisk.internal 10.1.2.1:5432/tcp|web a.example.com 1.1.1.1:443/tcp",
			network: "a.example.com:443",
			byApp:   map[string]string{"web": "a.example.com:443"},
		},
		{
			name:    "ports count",
			flows:   "web a.example.com 1.1.1.1:443/tcp|web a.example.com 1.1.1.1:80/tcp",
			network: "a.example.com:80 a.example.com:443",
			byApp:   map[string]string{"web": "a.example.com:80 a.example.com:443"},
		},
		{
			name:    "protocols count",
			flows:   "web - 1.1.1.1/icmp|web a.example.com 1.1.1.1:443/udp|web a.example.com 1.1.1.1:443/tcp|web - 1.1.1.53:53/udp",
			network: "a.example.com:443 udp://a.example.com:443 udp://1.1.1.53:53 icmp://1.1.1.1",
			byApp:   map[string]string{"web": "a.example.com:443 udp://a.example.com:443 udp://1.1.1.53:53 icmp://1.1.1.1"},
		},
		{
			name:    "IPv6 in brackets",
			flows:   "web - [2001:db8::1]:443/tcp|web - [2001:db8::1]:53/udp|web - 2001:db8::1/icmp",
			network: "[2001:db8::1]:443 udp://[2001:db8::1]:53 icmp://2001:db8::1",
			byApp:   map[string]string{"web": "[2001:db8::1]:443 udp://[2001:db8::1]:53 icmp://2001:db8::1"},
		},
		{
			name:    "a ping by name, on the internet and in the LAN",
			flows:   "web a.example.com 1.1.1.1/icmp|web nas.home.arpa 10.1.2.3/icmp",
			network: "icmp://nas.home.arpa icmp://a.example.com icmp://10.1.2.3",
			byApp:   map[string]string{"web": "icmp://nas.home.arpa icmp://a.example.com icmp://10.1.2.3"},
		},
		{
			name:    "apps have lists of their own",
			flows:   "web a.example.com 1.1.1.1:443/tcp|db b.example.com 1.1.1.2:443/tcp|db a.example.com 1.1.1.1:443/tcp",
			network: "a.example.com:443 b.example.com:443",
			byApp:   map[string]string{"web": "a.example.com:443", "db": "a.example.com:443 b.example.com:443"},
		},
		{
			name:    "only the apps asked about",
			flows:   "web a.example.com 1.1.1.1:443/tcp|db b.example.com 1.1.1.2:443/tcp",
			apps:    []string{"db"},
			network: "b.example.com:443",
			byApp:   map[string]string{"db": "b.example.com:443"},
		},
		{
			name:    "what failed was wanted, what was denied is not learned",
			flows:   "web a.example.com 1.1.1.1:443/tcp failed|web b.example.com 1.1.1.2:443/tcp denied",
			network: "a.example.com:443",
			byApp:   map[string]string{"web": "a.example.com:443"},
		},
		{
			name:    "names of a domain stand together",
			flows:   "web b.a.org 1.1.1.1:443/tcp|web a.b.org 1.1.1.2:443/tcp|web a.org 1.1.1.3:443/tcp|web c.a.org 1.1.1.4:443/tcp",
			network: "a.org:443 b.a.org:443 c.a.org:443 a.b.org:443",
			byApp:   map[string]string{"web": "a.org:443 b.a.org:443 c.a.org:443 a.b.org:443"},
		},
		{
			name:    "a name that no rule can have",
			flows:   `web a\032b.example.com 1.1.1.1:443/tcp|web "].x 1.1.1.2:443/tcp|web Upper.Example.com 1.1.1.3:443/tcp|web -x.com 1.1.1.4:443/tcp`,
			network: "upper.example.com:443 x.com:443 1.1.1.1:443 1.1.1.2:443",
			byApp:   map[string]string{"web": "upper.example.com:443 x.com:443 1.1.1.1:443 1.1.1.2:443"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var lines []FlowLine
			for f := range strings.SplitSeq(c.flows, "|") {
				if f != "" {
					lines = append(lines, flow(t, f))
				}
			}
			got := LearnEgress(lines, c.apps)
			for _, need := range got.Network {
				if _, err := config.ParseEgressRule(need.String()); err != nil {
					t.Errorf("whisk.toml does not take %s: %v", need, err)
				}
			}
			if r := rules(got.Network); r != c.network {
				t.Errorf("network: got %s, want %s", r, c.network)
			}
			byApp := map[string]string{}
			for app, needs := range got.Apps {
				byApp[app] = rules(needs)
			}
			if !maps.Equal(byApp, c.byApp) {
				t.Errorf("apps: got %v, want %v", byApp, c.byApp)
			}
			slices.Reverse(lines)
			if again := LearnEgress(lines, c.apps); rules(again.Network) != c.network {
				t.Errorf("the other way round: got %s, want %s", rules(again.Network), c.network)
			}
		})
	}
}

func TestLearnEgressCountsWhatIsLeftOut(t *testing.T) {
	lines := []FlowLine{
		flow(t, "web a.example.com 1.1.1.1:443/tcp"),
		flow(t, "web a.example.com 1.1.1.1:443/tcp denied"),
		{App: "web", Verdict: FlowFailed, Count: 70},
		{Verdict: FlowLost, Count: 8},
	}
	lines[1].Count = 3
	if got := LearnEgress(lines, []string{"web"}); got.Flows != 1 || got.Denied != 3 || got.Summed != 70 || got.Lost != 8 {
		t.Errorf("got %+v", got)
	}
}

func TestWildcards(t *testing.T) {
	var needs []EgressNeed
	for i := range 6 {
		needs = append(needs, EgressNeed{Protocol: "tcp", Name: fmt.Sprintf("s%d.example.org", i), Port: 443}, EgressNeed{Protocol: "tcp", Name: fmt.Sprintf("s%d.org", i), Port: 443})
		if i < 5 {
			needs = append(needs, EgressNeed{Protocol: "udp", Name: fmt.Sprintf("s%d.example.org", i), Port: 443})
		}
	}
	got := Wildcards(needs)
	if len(got) != 1 || len(got["*.example.org:443"]) != 6 {
		t.Errorf("got %v, want *.example.org:443 for six names: not for five, and not below a single label", got)
	}
}

func TestFlowLogIsKeptBoundedAndRemoved(t *testing.T) {
	d := Dirs{Data: t.TempDir(), Run: t.TempDir()}
	spec := &Spec{ID: NewID(), Project: "shop", Network: "shop"}
	l := NewFlowLog(d, spec)
	if _, err := os.Stat(d.NetworkData("shop")); err == nil {
		t.Error("there is a folder without a flow")
	}
	line := FlowLine{App: "web", Verdict: FlowAllowed, Protocol: "tcp", Name: strings.Repeat("x", 200), Count: 1}
	const n = 60000
	for i := range n {
		line.Time, line.Port = time.Now(), uint16(i)
		l.Write(line)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(d.NetworkData("shop"))
	var total int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			total += info.Size()
		}
	}
	if err != nil || len(entries) != 3 || total > 3*flowFileSize || total < 2*flowFileSize {
		t.Errorf("%d files of %d bytes together, %v; want 3 of at most %d", len(entries), total, err, 3*flowFileSize)
	}
	var ports []uint16
	o := FlowOptions{LogOptions: LogOptions{Tail: 20000}}
	if err := ReadFlows(t.Context(), spec.EgressLog(d), o, func(l FlowLine) error { ports = append(ports, l.Port); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(ports) != 20000 || ports[19999] != uint16((n-1)&0xffff) || ports[0] != uint16((n-20000)&0xffff) {
		t.Errorf("the last 20000 flows over several files: got %d, %v to %v", len(ports), ports[0], ports[len(ports)-1])
	}
	if err := RemoveEgressLog(d, "shop"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.NetworkData("shop")); err == nil {
		t.Error("the network's folder is left")
	}
	if err := RemoveEgressLog(d, "shop"); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestAPrivateFlowLogGoesWithItsSandbox(t *testing.T) {
	d := Dirs{Data: t.TempDir(), Run: t.TempDir()}
	spec := &Spec{ID: NewID()}
	spec.Network = spec.ID
	l := NewFlowLog(d, spec)
	l.Write(FlowLine{}) // the sandbox's folder is gone already
	if _, err := os.Stat(d.Sandboxes()); err == nil {
		t.Error("a flow has made the folder of a sandbox that is gone")
	}
	if err := os.MkdirAll(d.Sandbox(spec.ID), 0o700); err != nil {
		t.Fatal(err)
	}
	l.Write(FlowLine{})
	if _, err := os.Stat(filepath.Join(d.Sandbox(spec.ID), "egress.log")); err != nil {
		t.Error(err)
	}
}

func TestReadFlowsChooses(t *testing.T) {
	d := Dirs{Data: t.TempDir(), Run: t.TempDir()}
	spec := &Spec{Project: "shop", Network: "shop"}
	l := NewFlowLog(d, spec)
	base := time.Now().Add(-time.Hour)
	for i, text := range []string{"web - 192.0.2.1:1/tcp", "db - 192.0.2.1:2/tcp denied", "web - 192.0.2.1:3/tcp denied", "db - 192.0.2.1:4/tcp"} {
		line := flow(t, text)
		line.Time = base.Add(time.Duration(i) * time.Minute)
		l.Write(line)
	}
	l.Write(FlowLine{Time: base.Add(9 * time.Minute), Verdict: FlowLost, Count: 7})
	for _, c := range []struct {
		name string
		o    FlowOptions
		want string
	}{
		{"all", FlowOptions{LogOptions: LogOptions{Tail: -1}}, "1 2 3 4 0"},
		{"one app", FlowOptions{LogOptions: LogOptions{Tail: -1}, Apps: []string{"web"}}, "1 3"},
		{"denied", FlowOptions{LogOptions: LogOptions{Tail: -1}, Denied: true}, "2 3"},
		{"denied, of one", FlowOptions{LogOptions: LogOptions{Tail: -1}, Denied: true, Apps: []string{"db"}}, "2"},
		{"since", FlowOptions{LogOptions: LogOptions{Tail: -1, Since: base.Add(2 * time.Minute)}}, "3 4 0"},
		{"tail of those that are wanted", FlowOptions{LogOptions: LogOptions{Tail: 1}, Denied: true}, "3"},
		{"none", FlowOptions{}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			if err := ReadFlows(t.Context(), spec.EgressLog(d), c.o, func(l FlowLine) error { got = append(got, fmt.Sprint(l.Port)); return nil }); err != nil {
				t.Fatal(err)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

func TestFollowingFlowsBeforeThereIsALog(t *testing.T) {
	d := Dirs{Data: t.TempDir(), Run: t.TempDir()}
	spec := &Spec{Project: "shop", Network: "shop"}
	written := make(chan struct{})
	started := make(chan struct{})
	o := FlowOptions{LogOptions: LogOptions{Follow: true, Tail: -1}}
	first := true
	o.Ended = func() bool {
		if first {
			close(started)
			first = false
		}
		select {
		case <-written:
			return true
		default:
			return false
		}
	}
	go func() {
		<-started
		l := NewFlowLog(d, spec)
		for i := range 3 {
			l.Write(FlowLine{Port: uint16(i)})
		}
		_ = l.Clear() // a new up
		l.Write(FlowLine{Port: 7})
		close(written)
	}()
	last := uint16(0)
	if err := ReadFlows(t.Context(), spec.EgressLog(d), o, func(l FlowLine) error { last = l.Port; return nil }); err != nil {
		t.Fatal(err)
	}
	if last != 7 {
		t.Errorf("the last flow given was %d, want 7", last)
	}
}
