package image

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	type read struct {
		n      int
		waited time.Duration
	}
	repeat := func(r read, times int) (out []read) {
		for range times {
			out = append(out, r)
		}
		return out
	}
	for name, c := range map[string]struct {
		reads []read
		slow  bool
	}{
		"a byte a second":               {repeat(read{1, time.Second}, 60), true},
		"a byte a second, not for long": {repeat(read{1, time.Second}, 59), false},
		"63 bytes a second":             {repeat(read{63, time.Second}, 60), true},
		"64 bytes a second":             {repeat(read{64, time.Second}, 600), false},
		"much at the end of a window":   {append(repeat(read{0, time.Second}, 59), read{4000, time.Second}), false},
		"a good start, then drips":      {append(repeat(read{4000, time.Second}, 60), repeat(read{1, time.Second}, 60)...), true},
		"a fast one":                    {repeat(read{1, time.Microsecond}, 100_000), false},
	} {
		t.Run(name, func(t *testing.T) {
			p := defaultPace()
			var err error
			for _, r := range c.reads {
				if err = p.brought(r.n, r.waited); err != nil {
					break
				}
			}
			if (err != nil) != c.slow {
				t.Errorf("error %v, want one: %v", err, c.slow)
			}
		})
	}
}
