package procfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteReachesTheKernelOnly(t *testing.T) {
	if err := Write("/proc/thread-self/comm", "written"); err != nil {
		t.Errorf("a file of /proc: %v", err)
	}
	name := filepath.Join(t.TempDir(), "uid_map")
	if err := os.WriteFile(name, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(name, "after"); err == nil || !strings.Contains(err.Error(), "not of the kernel's /proc") {
		t.Errorf("another file: got %v, want it refused", err)
	}
	if b, err := os.ReadFile(name); string(b) != "before" {
		t.Errorf("it has been written to: %q (%v)", b, err)
	}
	if err := Write(filepath.Join(t.TempDir(), "none"), "x"); !os.IsNotExist(err) {
		t.Errorf("one that is not there: got %v, want that it is not", err)
	}
}
