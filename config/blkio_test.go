package config

import (
	"reflect"
	"strings"
	"testing"
)

func TestAddDeviceRate(t *testing.T) {
	var got []DeviceRate
	for _, step := range []struct {
		kind RateKind
		in   string
	}{{ReadBPS, "/dev/sda:10m"}, {WriteIOPS, "/dev/../dev/sda:500"}, {WriteBPS, "/dev/disk/by-path/a:b:1k"}, {ReadBPS, "/dev/sda:20m"}, {ReadIOPS, "/dev/sda:0"}} {
		var err error
		if got, err = AddDeviceRate(got, step.kind, step.in); err != nil {
			t.Fatalf("%s %s: %v", step.kind, step.in, err)
		}
	}
	want := []DeviceRate{{Path: "/dev/sda", ReadBPS: 20 << 20, WriteIOPS: 500}, {Path: "/dev/disk/by-path/a:b", WriteBPS: 1 << 10}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	for _, bad := range []struct {
		kind     RateKind
		in, want string
	}{
		{ReadBPS, "/dev/sda", `rate "/dev/sda" is not PATH:RATE, such as /dev/sda:10m`},
		{ReadIOPS, "sda:5", "such as /dev/sda:500"},
		{ReadBPS, "/dev/sda:fast", `size "fast" is not a number of bytes`},
		{WriteIOPS, "/dev/sda:10m", `"10m" is no number of operations a second`},
		{WriteIOPS, "/dev/sda:-1", `"-1" is no number`},
		{ReadBPS, "/dev/\nsda:1", "is not PATH:RATE"},
	} {
		if _, err := AddDeviceRate(nil, bad.kind, bad.in); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s %q: %v, want %q", bad.kind, bad.in, err, bad.want)
		}
	}
}

func TestParseBlkioWeight(t *testing.T) {
	for in, want := range map[string]int64{"10": 10, "1000": 1000, "0": 0, "9": -1, "1001": -1, "-1": -1, "x": -1} {
		got, err := ParseBlkioWeight(in)
		if (err != nil) != (want == -1) || err == nil && got != want {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
}
