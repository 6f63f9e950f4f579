package launcher

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/whisk-sandbox/whisk/config"
)

// write makes the folder and record of a sandbox, and holds its network when held is set.
func write(t *testing.T, d Dirs, r Record, held bool) {
	t.Helper()
	r.Version = SpecVersion
	if err := os.MkdirAll(d.Sandbox(r.ID), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.Write(d); err != nil {
		t.Fatal(err)
	}
	if !held {
		return
	}
	if err := os.MkdirAll(d.Network(r.Network), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(d.Network(r.Network), "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := TakeLock(f); err != nil {
		t.Fatal(err)
	}
}

func TestRecordsTellTheTruthOfKilledKeepers(t *testing.T) {
	d := Dirs{Data: t.TempDir(), Run: t.TempDir()}
	at := func(n int) time.Time { return time.Unix(int64(n), 0).UTC() }
	write(t, d, Record{Spec: Spec{ID: "000000000001", Network: "a"}, State: Running, CreatedAt: at(1), PID: 7}, true)
	write(t, d, Record{Spec: Spec{ID: "000000000002", Network: "b"}, State: Running, CreatedAt: at(2), PID: 8}, false)
	write(t, d, Record{Spec: Spec{ID: "000000000003", Network: "c", Remove: true}, State: Running, CreatedAt: at(3)}, false)
	write(t, d, Record{Spec: Spec{ID: "000000000004", Network: "d"}, State: Created, CreatedAt: at(4)}, false)
	write(t, d, Record{Spec: Spec{ID: "000000000005", Network: "e"}, State: Exited, ExitCode: 3, CreatedAt: at(5)}, false)
	got, err := Records(d)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		id    string
		state State
		code  int
		pid   int
	}
	want := []row{{"000000000001", Running, 0, 7}, {"000000000002", Exited, 137, 0}, {"000000000005", Exited, 3, 0}}
	if len(got) != len(want) {
		t.Fatalf("want %v, got %+v", want, got)
	}
	for i, r := range got {
		if (row{r.ID, r.State, r.ExitCode, r.PID}) != want[i] {
			t.Errorf("want %v, got %+v", want[i], r)
		}
	}
	if !Unswept(d) {
		t.Error("Unswept does not see what is left")
	}
	if err := Sweep(d); err != nil {
		t.Fatal(err)
	}
	if Unswept(d) {
		t.Error("Sweep leaves something")
	}
	for id, there := range map[string]bool{"000000000001": true, "000000000002": true, "000000000003": false, "000000000004": false, "000000000005": true} {
		if _, err := os.Stat(d.Sandbox(id)); (err == nil) != there {
			t.Errorf("sandbox %s after the sweep: there %v, want %v", id, err == nil, there)
		}
	}
	if r, err := ReadRecord(d, "000000000002"); err != nil || r.State != Exited || r.ExitCode != 137 {
		t.Errorf("the sweep writes down %+v, %v", r, err)
	}
}

func TestSweepTakesNetworksOfKilledKeepersOnly(t *testing.T) {
	d := Dirs{Data: t.TempDir(), Run: t.TempDir()}
	write(t, d, Record{Spec: Spec{ID: "000000000001", Network: "held"}, State: Running}, true)
	if err := os.MkdirAll(d.Network("dead"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"lock", "control.sock"} {
		if err := os.WriteFile(filepath.Join(d.Network("dead"), f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := SweepNetworks(d); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.Network("dead")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead keeper's folder is left: %v", err)
	}
	if !Held(d, "held") {
		t.Error("the living keeper has lost its network")
	}
}

func TestFindSelectsByIDNameAndApp(t *testing.T) {
	d := Dirs{Data: t.TempDir(), Run: t.TempDir()}
	write(t, d, Record{Spec: Spec{ID: "aaaa00000001", Name: "solo", Network: "x"}, State: Exited}, false)
	write(t, d, Record{Spec: Spec{ID: "aaaa00000002", Name: "shop-web", Project: "shop", App: config.App{Name: "web"}, Network: "shop"}, State: Exited}, false)
	write(t, d, Record{Spec: Spec{ID: "bbbb00000003", Name: "blog-web", Project: "blog", App: config.App{Name: "web"}, Network: "blog"}, State: Exited}, false)
	for name, c := range map[string]struct{ selector, project, want string }{
		"full id":                   {"aaaa00000001", "", "aaaa00000001"},
		"prefix":                    {"b", "", "bbbb00000003"},
		"prefix of two":             {"aaaa", "", ""},
		"name":                      {"solo", "", "aaaa00000001"},
		"app of this project":       {"web", "shop", "aaaa00000002"},
		"app of several projects":   {"web", "", ""},
		"project/app":               {"blog/web", "shop", "bbbb00000003"},
		"nothing":                   {"none", "", ""},
		"the empty word":            {"", "", ""},
		"app of a project not here": {"web", "other", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Find(d, c.selector, c.project)
			switch {
			case c.want == "" && err == nil:
				t.Errorf("want an error, got %s", r.ID)
			case c.want != "" && (err != nil || r.ID != c.want):
				t.Errorf("want %s, got %v, %v", c.want, r, err)
			}
		})
	}
}

// TestHeldSandboxIsNotRemoved: who removes a sandbox and who starts it again keep each other off.
func TestHeldSandboxIsNotRemoved(t *testing.T) {
	d := Dirs{Data: t.TempDir(), Run: t.TempDir()}
	r := Record{Spec: Spec{ID: "0123456789ab", Network: "0123456789ab"}, State: Exited}
	write(t, d, r, false)
	hold, err := HoldSandbox(d, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	for what, try := range map[string]func() error{
		"a second keeper": func() error { _, err := HoldSandbox(d, r.ID); return err },
		"a removal":       func() error { return RemoveSandbox(d, r.ID, true) },
	} {
		if err := try(); !errors.Is(err, ErrSandboxHeld) {
			t.Errorf("%s: %v, want %v", what, err, ErrSandboxHeld)
		}
	}
	r.State = Created // what a killed keeper leaves; this one lives, though its network's lock is not held
	write(t, d, r, false)
	if err := Sweep(d); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRecord(d, r.ID); err != nil {
		t.Errorf("swept while it was held: %v", err)
	}
	hold.Close()
	if err := RemoveSandbox(d, r.ID, true); err != nil {
		t.Fatal(err)
	}
	if _, err := HoldSandbox(d, r.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the removal: %v", err)
	}
	if err := RemoveSandbox(d, r.ID, true); err != nil {
		t.Errorf("a second removal: %v", err)
	}
}
