package cli

import (
	"bytes"
	"testing"
	"time"

	"github.com/whisk-sandbox/whisk/launcher/cgroup"
)

func TestShareOfProcessor(t *testing.T) {
	before := []statsRow{{ID: "a", Stats: &cgroup.Stats{CPU: time.Second}}, {ID: "b", Stats: &cgroup.Stats{CPU: time.Minute}}, {ID: "c"}}
	now := []statsRow{
		{ID: "a", Stats: &cgroup.Stats{CPU: 4 * time.Second}},
		{ID: "b", Stats: &cgroup.Stats{CPU: time.Second}}, // restarted
		{ID: "c", Stats: &cgroup.Stats{CPU: time.Second}},
		{ID: "new", Stats: &cgroup.Stats{CPU: time.Second}},
	}
	share(now, before, 2*time.Second)
	for i, want := range []float64{150, 0, 0, 0} {
		if now[i].Percent != want {
			t.Errorf("%s: %v %%, want %v", now[i].ID, now[i].Percent, want)
		}
	}
}

func TestStatsTable(t *testing.T) {
	var b bytes.Buffer
	rows := []statsRow{
		{ID: "0123456789ab", Name: "web", Percent: 12.34, Stats: &cgroup.Stats{Memory: 3_000_000, MemoryLimit: 64 << 20, Pids: 4, OOMKills: 1}},
		{ID: "ba9876543210", Name: "front"},
	}
	if err := statsTable(rows).write(&b); err != nil {
		t.Fatal(err)
	}
	want := "ID            NAME   CPU    MEMORY  LIMIT  PIDS  READ  WRITTEN  OOM KILLS\n" +
		"0123456789ab  web    12.3%  3 MB    64m    4     0 B   0 B      1\n" +
		"ba9876543210  front  -      -       -      -     -     -        -\n"
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}
