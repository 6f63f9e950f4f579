package birth

import (
	"math"
	"testing"
)

func TestThreeQuarters(t *testing.T) {
	for name, c := range map[string]struct{ limit, pids, threads, want uint64 }{
		"the login's limit":    {1000, 32768, 190000, 750},
		"the machine's pids":   {96365, 32768, 192730, 24576},
		"the machine's memory": {math.MaxUint64, 4 << 20, 40000, 30000},
		"next to nothing":      {1, 32768, 190000, 1},
		"nothing known":        {math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64 - math.MaxUint64/4},
	} {
		if got := threeQuarters(c.limit, c.pids, c.threads); got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
	}
}

func TestMachineHasBounds(t *testing.T) {
	for _, name := range []string{"pid_max", "threads-max"} {
		if n := bound(name); n < 300 || n == math.MaxUint64 {
			t.Errorf("%s: got %d", name, n)
		}
	}
	if n := bound("no-such-bound"); n != math.MaxUint64 {
		t.Errorf("a bound that is not there: got %d", n)
	}
}
