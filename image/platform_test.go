package image

import "testing"

func TestRunsOn(t *testing.T) {
	for _, c := range []struct {
		wanted, is string
		want       bool
	}{
		{"", "linux/s390x", true},
		{"linux/amd64", "linux/amd64", true},
		{"amd64", "linux/amd64", true},
		{"linux/x86_64/v1", "linux/amd64", true},
		{"linux/arm64", "linux/arm64/v8", true},
		{"linux/arm64/v8", "linux/arm64", true},
		{"linux/arm64", "linux/amd64", false},
		{"linux/arm", "linux/arm64", false},
		{"linux/arm/v6", "linux/arm/v7", false},
		{"linux/amd64", "/", false},
	} {
		if got, err := (&Image{Platform: c.is}).RunsOn(c.wanted); got != c.want || err != nil {
			t.Errorf("an image for %q runs on %q: %v, %v; want %v", c.is, c.wanted, got, err, c.want)
		}
	}
	if _, err := (&Image{Platform: "linux/amd64"}).RunsOn("linux//v1"); err == nil {
		t.Error("a platform that is none is no fault")
	}
}
