package cli

import (
	"reflect"
	"strings"
	"testing"

	"github.com/whisk-sandbox/whisk/config"
)

// A rate that is named changes that one alone, and the record's own stay as they were.
func TestUpdateLaysRatesOver(t *testing.T) {
	had := []config.DeviceRate{{Path: "/dev/sda", ReadBPS: 1 << 20, WriteIOPS: 5}}
	u := updateRates{DeviceReadBPS: []string{"/dev/sda:0"}, DeviceWriteBPS: []string{"/dev/sdb:2m"}}
	got, err := u.over(had)
	want := []config.DeviceRate{{Path: "/dev/sda", WriteIOPS: 5}, {Path: "/dev/sdb", WriteBPS: 2 << 20}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if had[0].ReadBPS != 1<<20 {
		t.Error("the sandbox's own rates have changed before anything was asked of the keeper")
	}
}

func TestMemorySwapNeedsMemory(t *testing.T) {
	for line, want := range map[string]string{
		"run --memory-swap 1g img":                   "needs a memory limit",
		"run -m 1g --memory-swap 512m img":           "is below the memory limit",
		"run -m 1g --memory-swap nonsense img":       "--memory-swap: ",
		"update --memory-swap nonsense web":          "--memory-swap: ",
		"update --device-read-bps /dev/sda:fast web": "--device-read-bps: ",
		"update web": "nothing to change",
	} {
		if code, _, faults := said(t, strings.Fields(line)...); code != 125 || !strings.Contains(faults, want) {
			t.Errorf("%s: exit code %d, %q; want 125 and %q", line, code, faults, want)
		}
	}
}
