package cli

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
)

// written makes the log of an app of the project shop.
func written(t *testing.T, d launcher.Dirs, id, app string, lines ...launcher.LogLine) *launcher.Record {
	t.Helper()
	if err := os.MkdirAll(d.Sandbox(id), 0o700); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, line := range lines {
		doc, err := json.Marshal(line)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(doc, '\n'))
	}
	if err := os.WriteFile(d.Log(id), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return &launcher.Record{Spec: launcher.Spec{ID: id, Project: "shop", App: config.App{Name: app}}}
}

func TestLogsOfSeveralAppsAreInOrder(t *testing.T) {
	d := launcher.Dirs{Data: t.TempDir(), Run: t.TempDir()}
	at := func(s int) time.Time { return time.Date(2026, 5, 4, 12, 0, s, 0, time.UTC) }
	records := []*launcher.Record{
		written(t, d, "000000000001", "web", launcher.LogLine{Time: at(1), Text: "one"}, launcher.LogLine{Time: at(4), Text: "four"}),
		written(t, d, "000000000002", "db",
			launcher.LogLine{Time: at(2), Stream: "stderr", Text: "two\x1b[2J"}, launcher.LogLine{Time: at(3), Text: "\x1b[32mthree\x1b[0m"}, launcher.LogLine{Time: at(5), Text: "five\r"}),
		written(t, d, "000000000003", "idle"),
	}
	var out, faults strings.Builder
	p := &logPrinter{out: &out, err: &faults, prefix: newPrefixer(os.Stdin, func(string) string { return "1" }, []string{"web", "db", "idle"})}
	if err := inOrder(t.Context(), d, records, launcher.LogOptions{Tail: -1}, p); err != nil {
		t.Fatal(err)
	}
	want := "web  | one\ndb   | two\\x1b[2J\ndb   | \x1b[32mthree\x1b[0m\x1b[0m\nweb  | four\ndb   | five\n"
	if out.String() != want || faults.String() != "" {
		t.Errorf("got %q and %q, want %q", out.String(), faults.String(), want)
	}
}

func TestLogOfOneAppIsAsItWas(t *testing.T) {
	d := launcher.Dirs{Data: t.TempDir(), Run: t.TempDir()}
	when := time.Date(2026, 5, 4, 12, 0, 0, 5, time.UTC)
	r := written(t, d, "000000000001", "web",
		launcher.LogLine{Time: when, Stream: "stdout", Text: "a\x1b[1m", Partial: true}, launcher.LogLine{Time: when, Stream: "stdout", Text: "b"},
		launcher.LogLine{Time: when, Stream: "stderr", Text: "c"})
	var out, faults strings.Builder
	if err := inOrder(t.Context(), d, []*launcher.Record{r}, launcher.LogOptions{Tail: -1}, &logPrinter{out: &out, err: &faults}); err != nil {
		t.Fatal(err)
	}
	if out.String() != "a\x1b[1mb\n" || faults.String() != "c\n" {
		t.Errorf("got %q and %q", out.String(), faults.String())
	}
	out.Reset()
	if err := inOrder(t.Context(), d, []*launcher.Record{r}, launcher.LogOptions{Tail: 1}, &logPrinter{out: &out, json: true}); err != nil {
		t.Fatal(err)
	}
	if want := `{"app":"web","time":"2026-05-04T12:00:00.000000005Z","stream":"stderr","text":"c"}` + "\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestSince(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"": {}, "10m": now.Add(-10 * time.Minute), "90": now.Add(-90 * time.Second), "2026-05-01": time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC),
		"2026-05-01T10:00:00+02:00": time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC), "2026-05-01T10:00": time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC),
	} {
		got, err := since(text, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestKeepColours(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttab":               "plain\ttab",
		"\x1b[1;31mred":            "\x1b[1;31mred\x1b[0m",
		"\x1b[31":                  "\\x1b[31",
		"\x1b[2Jcleared":           "\\x1b[2Jcleared",
		"\x1b]0;title\x07":         "\\x1b]0;title\\a",
		"\x1b[32mok\x1b[0m\x1b[5A": "\x1b[32mok\x1b[0m\\x1b[5A\x1b[0m",
		"\xff":                     "\\xff",
	} {
		if got := keepColours(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
