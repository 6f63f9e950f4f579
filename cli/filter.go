package cli

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// filters select what a command lists, as docker's --filter does: of several values for one key any may match, of
// several labels all must, and so must all keys.
type filters map[string][]string

// parseFilters reads --filter KEY=VALUE; keys are those that the command knows.
func parseFilters(values []string, keys ...string) (filters, error) {
	f := filters{}
	for _, v := range values {
		key, value, ok := strings.Cut(v, "=")
		if !ok || value == "" || !slices.Contains(keys, key) {
			return nil, usage("write it as "+strings.Join(keys, "=…, ")+"=…", "--filter: %q is not known", v)
		}
		if _, err := regexp.Compile(value); key == "name" && err != nil {
			return nil, flagFault("--filter", fmt.Errorf("name %q is not a regular expression", value))
		}
		f[key] = append(f[key], value)
	}
	return f, nil
}

// name tells whether a name is selected: one of the regular expressions matches a part of it.
func (f filters) name(name string) bool {
	return f.any("name", func(want string) bool {
		ok, err := regexp.MatchString(want, name)
		return err == nil && ok
	})
}

// is tells whether a value is one of those that were asked for.
func (f filters) is(key, value string) bool {
	return f.any(key, func(want string) bool { return want == value })
}

func (f filters) any(key string, match func(want string) bool) bool {
	return len(f[key]) == 0 || slices.ContainsFunc(f[key], match)
}

// labels tells whether all labels that were asked for are there: label=KEY, or label=KEY=VALUE.
func (f filters) labels(labels map[string]string) bool {
	for _, want := range f["label"] {
		key, value, exact := strings.Cut(want, "=")
		if is, ok := labels[key]; !ok || exact && is != value {
			return false
		}
	}
	return true
}
