package cli

import "testing"

func TestFilters(t *testing.T) {
	labels := map[string]string{"tier": "front", "keep": ""}
	for _, c := range []struct {
		name   string
		values []string
		want   bool
	}{
		{"none", nil, true},
		{"a label by its key", []string{"label=tier"}, true},
		{"a label by its value", []string{"label=tier=front"}, true},
		{"another value", []string{"label=tier=back"}, false},
		{"an empty value", []string{"label=keep="}, true},
		{"all labels must match", []string{"label=tier", "label=nosuch"}, false},
		{"a part of the name", []string{"name=eb"}, true},
		{"the whole name", []string{"name=^web$"}, true},
		{"one name of two", []string{"name=^db$", "name=^web$"}, true},
		{"another name", []string{"name=^we$"}, false},
		{"all keys must match", []string{"name=web", "status=exited"}, false},
		{"a state", []string{"status=running"}, true},
		{"one state of two", []string{"status=exited", "status=running"}, true},
	} {
		f, err := parseFilters(c.values, "label", "name", "status")
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := f.labels(labels) && f.name("web") && f.is("status", "running"); got != c.want {
			t.Errorf("%s: %v selects it: %v, want %v", c.name, c.values, got, c.want)
		}
	}
	for _, bad := range []string{"label", "label=", "nosuch=x", "=x", "name=["} {
		if _, err := parseFilters([]string{bad}, "label", "name"); err == nil {
			t.Errorf("--filter %q is taken", bad)
		}
	}
}
