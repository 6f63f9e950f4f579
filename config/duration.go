package config

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// ParseStopTimeout reads how long a stop waits before it kills: a duration, or -1 for ever, as docker has it.
func ParseStopTimeout(s string) (time.Duration, error) {
	if s == "-1" {
		return -1, nil
	}
	return ParseDuration(s)
}

// ParseDuration reads a length of time: a plain number is seconds (10, 0.5), otherwise Go's form (1m30s, 200ms).
// It is never negative.
func ParseDuration(s string) (time.Duration, error) {
	if isDecimal(s) {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || f*float64(time.Second) >= math.MaxInt64 {
			return 0, fmt.Errorf("duration %q is too long", clip(s))
		}
		return time.Duration(f * float64(time.Second)), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("duration %q is not a length of time, such as 10, 1m30s or 200ms (a plain number is seconds)", clip(s))
	}
	if d < 0 {
		return 0, fmt.Errorf("duration %q is negative", clip(s))
	}
	return d, nil
}
