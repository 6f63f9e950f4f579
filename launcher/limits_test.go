package launcher

import (
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
)

func TestLimitsAskedForWin(t *testing.T) {
	files := rlimit{unix.RLIMIT_NOFILE, unix.Rlimit{Cur: 1024, Max: 4096}}
	got, err := planLimits([]config.Ulimit{{Name: "nproc", Soft: 10, Hard: 20}}, []rlimit{files, {unix.RLIMIT_NPROC, unix.Rlimit{Cur: 1, Max: 2}}})
	if want := []rlimit{files, {unix.RLIMIT_NPROC, unix.Rlimit{Cur: 10, Max: 20}}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if _, err := planLimits([]config.Ulimit{{Name: "nonsense"}}, nil); err == nil {
		t.Error("an unknown limit was taken")
	}
}

func TestBoundOfProcesses(t *testing.T) {
	nproc := func(max uint64) []rlimit { return []rlimit{{unix.RLIMIT_NPROC, unix.Rlimit{Max: max}}} }
	for _, c := range []struct {
		name   string
		limits []rlimit
		want   uint64
	}{
		{"by default", nil, 4096},
		{"a lower ulimit", nproc(100), 4096},
		{"a higher ulimit", nproc(20000), 20300},
		{"no limit", nproc(unix.RLIM_INFINITY), 4 << 20},
	} {
		if got := pidMax(c.limits); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
