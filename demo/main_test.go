package demo

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/whisk-sandbox/whisk/internal/testuser"
)

// envBinary names whisk itself, built once, to the process that runs the tests as an ordinary user; testuser passes on
// what begins with WHISK_.
const envBinary = "WHISK_TEST_BINARY"

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	flag.Parse()
	if os.Getenv(envBinary) == "" {
		dir, err := build()
		if dir != "" {
			defer os.RemoveAll(dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "main_test:", err)
			return 1
		}
	}
	return testuser.Main(m)
}

// build builds whisk, where every user may execute it.
func build() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "whisk-demo"); err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "whisk")
	cmd := exec.Command("go", "build", "-o", binary, "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("building whisk: %w\n%s", err, out)
	}
	return dir, errors.Join(os.Chmod(dir, 0o755), os.Setenv(envBinary, binary))
}
