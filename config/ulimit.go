package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ulimitNames are the limits of getrlimit(2), in lower case and without RLIMIT_.
const ulimitNames = "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"

// ParseUlimit reads a resource limit as docker's --ulimit does: name=soft[:hard], where -1 or unlimited is no limit and a
// missing hard limit is the soft one. Values are in the limit's own unit (bytes, seconds, files …; getrlimit(2)).
func ParseUlimit(s string) (Ulimit, error) {
	name, values, ok := strings.Cut(s, "=")
	if !ok {
		return Ulimit{}, fmt.Errorf("ulimit %q: want name=soft[:hard], such as nofile=1024:2048", clip(s))
	}
	return parseUlimit(name, values)
}

func parseUlimit(name, values string) (Ulimit, error) {
	u := Ulimit{Name: strings.TrimPrefix(strings.ToLower(name), "rlimit_")}
	fail := func(format string, args ...any) (Ulimit, error) {
		return Ulimit{}, fmt.Errorf("ulimit %q: %s", clip(name), fmt.Sprintf(format, args...))
	}
	known := strings.Fields(ulimitNames)
	if u.Name == "" || !strings.Contains(" "+ulimitNames+" ", " "+u.Name+" ") || strings.Contains(u.Name, " ") {
		if s := suggest(u.Name, known); s != "" {
			return fail("there is no such limit; did you mean %q?", s)
		}
		return fail("there is no such limit; want one of %s", strings.Join(known, ", "))
	}
	soft, hard, both := strings.Cut(values, ":")
	if !both {
		hard = soft
	}
	var ok bool
	if u.Soft, ok = limitValue(soft); !ok {
		return fail("%q is not a number, -1 or unlimited; want soft[:hard]", clip(soft))
	}
	if u.Hard, ok = limitValue(hard); !ok {
		return fail("%q is not a number, -1 or unlimited; want soft[:hard]", clip(hard))
	}
	if u.Soft > u.Hard {
		return fail("the soft limit %s is above the hard limit %s", soft, hard)
	}
	return u, nil
}

func limitValue(s string) (uint64, bool) {
	if s == "-1" || s == "unlimited" {
		return math.MaxUint64, true
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && s[0] != '+'
}

// String returns the limit as ParseUlimit reads it.
func (u Ulimit) String() string {
	value := func(n uint64) string {
		if n == math.MaxUint64 {
			return "-1"
		}
		return strconv.FormatUint(n, 10)
	}
	return u.Name + "=" + value(u.Soft) + ":" + value(u.Hard)
}
