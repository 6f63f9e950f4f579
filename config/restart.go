package config

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseRestart reads when an app is started again: no, always, unless-stopped, on-failure or on-failure:N, at most N times.
func ParseRestart(s string) (Restart, error) {
	policies := []string{"no", "always", "unless-stopped", "on-failure"}
	policy, times, limited := strings.Cut(s, ":")
	for _, p := range policies {
		if policy != p {
			continue
		}
		if !limited {
			return Restart{Policy: p}, nil
		}
		if p != "on-failure" {
			return Restart{}, fmt.Errorf("restart %q: only on-failure takes a number", clip(s))
		}
		n, err := strconv.ParseUint(times, 10, 31)
		if err != nil || n == 0 {
			return Restart{}, fmt.Errorf("restart %q: %q is not a number of times from 1", clip(s), clip(times))
		}
		return Restart{Policy: p, Max: int(n)}, nil
	}
	if hint := didYouMean(policy, policies); hint != "" {
		return Restart{}, fmt.Errorf("restart %q: no such policy; %s", clip(s), hint)
	}
	return Restart{}, fmt.Errorf("restart %q: want no, always, unless-stopped or on-failure[:times]", clip(s))
}

// String returns the policy as ParseRestart reads it.
func (r Restart) String() string {
	switch {
	case r.Policy == "":
		return "no"
	case r.Max > 0:
		return r.Policy + ":" + strconv.Itoa(r.Max)
	}
	return r.Policy
}
