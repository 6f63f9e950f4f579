package launcher

import (
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/whisk-sandbox/whisk/config"
)

func TestNetworksThatWereCreated(t *testing.T) {
	d := Dirs{Data: t.TempDir(), Run: t.TempDir()}
	if got, err := NetworkSettings(d, "lan"); err != nil || !reflect.DeepEqual(got, Network{}) {
		t.Errorf("before: %+v, %v", got, err)
	}
	if got, err := Networks(d); err != nil || len(got) != 0 {
		t.Errorf("before: %v, %v", got, err)
	}
	want := Network{Name: "lan", Egress: "none", Isolate: true, IPv4: netip.MustParsePrefix("10.9.0.0/24")}
	if err := CreateNetwork(d, want); err != nil {
		t.Fatal(err)
	}
	if err := CreateNetwork(d, Network{Name: "lan.json"}); err != nil {
		t.Fatal(err)
	}
	got, err := NetworkSettings(d, "lan")
	if err != nil || got.CreatedAt.IsZero() || got.Version != SpecVersion {
		t.Errorf("got %+v, %v", got, err)
	}
	got.CreatedAt, got.Version = want.CreatedAt, 0
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	all, err := Networks(d)
	if err != nil || len(all) != 2 || all[0].Name != "lan" || all[1].Name != "lan.json" {
		t.Errorf("list: %+v, %v", all, err)
	}
	if err := CreateNetwork(d, want); err == nil || !strings.Contains(err.Error(), `"lan" exists`) {
		t.Errorf("creating it again: %v", err)
	}
	for _, name := range []string{"", "none", "host", "../x", strings.Repeat("x", 64)} {
		if err := CreateNetwork(d, Network{Name: name}); err == nil {
			t.Errorf("%q is created", name)
		}
	}
}

func TestNetworksInUseAreNotRemoved(t *testing.T) {
	d := Dirs{Data: t.TempDir(), Run: t.TempDir()}
	if err := CreateNetwork(d, Network{Name: "lan"}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []Record{
		{Spec: Spec{Version: SpecVersion, ID: "0123456789ab", Name: "one", Network: "lan"}, State: Exited},
		{Spec: Spec{Version: SpecVersion, ID: "0123456789ac", Name: "two", Network: "other", App: config.App{}}, State: Exited},
	} {
		if err := os.MkdirAll(d.Sandbox(r.ID), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := r.Write(d); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"lan": `network "lan" is used by one`, "other": `network "other" was not created: it goes with its last sandbox (two)`, "x": `no network "x"`, "../x": `no network "../x"`,
	} {
		if err := RemoveNetwork(d, name); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
	if err := os.WriteFile(d.EgressLog("lan"), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(d.Sandbox("0123456789ab")); err != nil {
		t.Fatal(err)
	}
	if err := RemoveNetwork(d, "lan"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.NetworkData("lan")); !os.IsNotExist(err) {
		t.Errorf("its folder: %v, want it gone", err)
	}
}
