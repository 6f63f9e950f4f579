package keeper

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/slirp"
)

func flowsIn(t *testing.T, d launcher.Dirs, network string) []launcher.FlowLine {
	t.Helper()
	var lines []launcher.FlowLine
	o := launcher.FlowOptions{LogOptions: launcher.LogOptions{Tail: -1}}
	if err := launcher.ReadFlows(t.Context(), d.EgressLog(network), o, func(l launcher.FlowLine) error { lines = append(lines, l); return nil }); err != nil {
		t.Fatal(err)
	}
	return lines
}

// Nobody writes yet: what does not fit is counted, and take returns.
func TestFlowsDoNotWaitForTheDisk(t *testing.T) {
	d := launcher.Dirs{Data: t.TempDir(), Run: t.TempDir()}
	l := newFlowLog()
	l.place(d, &launcher.Spec{ID: launcher.NewID(), Network: "shop", Project: "shop"})
	const each, tellers = 1000, 8
	var wg sync.WaitGroup
	for range tellers {
		wg.Go(func() {
			for range each {
				l.take(slirp.Flow{App: "web", Protocol: "tcp", Count: 1})
			}
		})
	}
	wg.Wait()
	l.take(slirp.Flow{App: "web", Denied: true, Count: 3})
	go l.run()
	l.close()
	lines := flowsIn(t, d, "shop")
	if len(lines) != maxFlows+1 {
		t.Fatalf("%d lines, want %d and one about the others", len(lines), maxFlows)
	}
	if last := lines[maxFlows]; last.Verdict != launcher.FlowLost || last.Count != each*tellers+3-maxFlows {
		t.Errorf("the last line is %+v, want %d lost", last, each*tellers+3-maxFlows)
	}
}

func TestFlowsBeforeTheFirstSandboxGoNowhere(t *testing.T) {
	d := launcher.Dirs{Data: t.TempDir(), Run: t.TempDir()}
	l := newFlowLog()
	l.place(d, &launcher.Spec{ID: launcher.NewID(), Network: "none", Project: "shop"})
	go l.run()
	l.take(slirp.Flow{Count: 1})
	l.close()
	if lines := flowsIn(t, d, "shop"); len(lines) > 0 {
		t.Errorf("got %+v", lines)
	}
}

func TestFlowLine(t *testing.T) {
	began := time.Date(2026, 11, 23, 12, 0, 0, 0, time.FixedZone("", 3600))
	f := slirp.Flow{
		Began: began, Ended: began.Add(time.Second), App: "web", Protocol: "tcp", To: netip.MustParseAddrPort("[2001:db8::1]:443"),
		Name: "api.example.org", Sent: 1, Received: 2, Count: 1,
	}
	for _, c := range []struct {
		name    string
		change  func(*slirp.Flow)
		verdict string
		address string
	}{
		{"allowed", func(*slirp.Flow) {}, launcher.FlowAllowed, "2001:db8::1"},
		{"denied", func(f *slirp.Flow) { f.Denied, f.Why = true, "egress is none" }, launcher.FlowDenied, "2001:db8::1"},
		{"failed", func(f *slirp.Flow) { f.Why = "connection refused" }, launcher.FlowFailed, "2001:db8::1"},
		{"a sum", func(f *slirp.Flow) { f.Denied, f.To, f.Protocol = true, netip.AddrPort{}, "" }, launcher.FlowDenied, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := f
			c.change(&f)
			l := flowLine(&f)
			if l.Verdict != c.verdict || l.Address != c.address || l.Why != f.Why || l.Port != f.To.Port() || l.Sent != 1 || l.Received != 2 || l.App != "web" {
				t.Errorf("got %+v", l)
			}
			if l.Time.Format(time.RFC3339) != "2026-11-23T11:00:01Z" || !l.Began.Equal(began) {
				t.Errorf("times: got %v to %v, want UTC", l.Began, l.Time)
			}
		})
	}
}
