package cli

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
)

func TestNetworkTable(t *testing.T) {
	sandbox := func(id, network, project, egress string, isolate bool, state launcher.State) launcher.Record {
		return launcher.Record{Spec: launcher.Spec{ID: id, Name: id, Network: network, Project: project, Egress: egress, Isolate: isolate, App: config.App{Name: "web"}}, State: state}
	}
	rows := networkRows([]launcher.Network{
		{Name: "lan", Egress: "none", IPv4: netip.MustParsePrefix("10.9.0.0/24")},
		{Name: "cells", Egress: "api.example.com,10.0.0.0/8:5432", Isolate: true},
	}, []launcher.Record{
		sandbox("a", "lan", "", "all", false, launcher.Running),
		sandbox("b", "lan", "", "", false, launcher.Exited),
		sandbox("guest", "shop", "", "none", false, launcher.Running),
		sandbox("c", "shop", "shop", "internet", true, launcher.Running),
		sandbox("d", "friends", "", "", false, launcher.Exited),
		sandbox("own", "own", "", "all", false, launcher.Running),
		sandbox("closed", "none", "", "", false, launcher.Running),
	})
	var out bytes.Buffer
	if err := networkTable(rows).write(&out); err != nil {
		t.Fatal(err)
	}
	want := `
NAME     KIND     SUBNET       EGRESS    ISOLATED  SANDBOXES
cells    created               2 rules   yes       0
friends  joined                all       no        0 (1 ended)
lan      created  10.9.0.0/24  none      no        1 (1 ended)
shop     project               internet  yes       2
`
	if got := "\n" + out.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestSubnetOfFlag(t *testing.T) {
	host := []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("2001:db8::/64")}
	for text, want := range map[string]string{
		"10.9.0.0/24":      "",
		"fd00:9::/64":      "",
		"192.168.0.0/16":   "overlaps 192.168.1.0/24",
		"2001:db8::/80":    "overlaps 2001:db8::/64",
		"10.9.0.1/24":      "bits set",
		"10.0.0.0/7":       "not a /8 to /29",
		"10.9.0.0":         "not a block",
		"::ffff:a00:0/120": "none of IPv4",
		"fe80::/64":        "meaning of its own",
		"224.0.0.0/8":      "meaning of its own",
		"fd00::/120":       "not at most a /112",
	} {
		p, err := parseSubnet(text, host)
		switch {
		case want == "" && (err != nil || p.String() != text):
			t.Errorf("%s: got %v, %v", text, p, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v, %v; want %q", text, p, err, want)
		}
	}
}
