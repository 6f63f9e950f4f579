//go:build vm

package vm

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files of doctor's answers anew")

// step is one thing that must work in the guest.
type step struct {
	name   string
	as     string // dev unless said otherwise
	script string
	want   string // must be in the output
	golden string // the file that the output must be, without its end
	limit  time.Duration
}

// TestVM boots Debian's releases, one after the other, and takes every variant's steps, those of two variants side by side on
// two processors: a machine has one.
func TestVM(t *testing.T) {
	output(t, "./install")
	drive := makeDrive(t)
	for _, suite := range []string{"trixie", "bookworm"} {
		t.Run(suite, func(t *testing.T) {
			disk := buildDisk(t, suite)
			for _, v := range variants(t) {
				t.Run(v.name, func(t *testing.T) {
					t.Parallel()
					for try := 1; !v.run(t, suite, disk, drive); try++ {
						if try == boots {
							t.Fatal("the machine does not last")
						}
					}
				})
			}
		})
	}
}

// run boots a machine and takes the variant's steps. It reports false if the machine's kernel has panicked under way: an emulated
// processor has its accidents, and they are not whisk's, which is an ordinary user's.
func (v variant) run(t *testing.T, suite, disk, drive string) bool {
	began := time.Now()
	m := v.boot(t, disk, drive)
	defer m.Close()
	t.Logf("booted in %.0f s", time.Since(began).Seconds())
	for _, s := range v.steps {
		began := time.Now()
		if s.script == crash {
			if err := m.Crash(); err != nil && m.Panicked() {
				t.Logf("%s: the kernel panicked; once more:\n%s", s.name, m.Tail())
				return false
			} else if err != nil {
				t.Fatalf("%s: %v\nconsole:\n%s", s.name, err, m.Tail())
			}
			t.Logf("ok    %-40s %.0f s", s.name, time.Since(began).Seconds())
			continue
		}
		if s.as == "" {
			s.as = "dev"
		}
		if s.limit == 0 {
			s.limit = 2 * time.Minute
		}
		r, err := m.Run(s.as, "PATH=/mnt/test/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"+s.script, s.limit)
		took := time.Since(began).Seconds()
		if err != nil && m.Panicked() {
			t.Logf("%s: the kernel panicked; once more:\n%s", s.name, m.Tail())
			return false
		}
		if err != nil {
			t.Fatalf("FAIL  %s: %v\nconsole:\n%s", s.name, err, m.Tail())
		}
		if r.Exit != 0 || !strings.Contains(r.Output, s.want) {
			t.Errorf("FAIL  %s: exit code %d %s after %.0f s, wanted 0 and %q; it said:\n%s\nconsole:\n%s", s.name, r.Exit, r.Error, took, s.want, r.Output, m.Tail())
			continue // a boot is dear: what else fails is worth knowing
		}
		if s.golden != "" {
			compare(t, filepath.Join("golden", s.golden+"."+suite+".txt"), r.Output)
		}
		t.Logf("ok    %-40s %.0f s", s.name, took)
		if testing.Verbose() && strings.TrimSpace(r.Output) != "" {
			t.Logf("      %s", strings.ReplaceAll(strings.TrimSpace(r.Output), "\n", "\n      "))
		}
	}
	return true
}

// boot starts a machine, again if it does not come up.
func (v variant) boot(t *testing.T, disk, drive string) *Machine {
	for try := 1; ; try++ {
		dir, err := os.MkdirTemp("", "vm") // short: a socket's path has 107 bytes
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		ctx, cancel := context.WithTimeout(t.Context(), bootTime)
		m, err := Boot(ctx, Config{Disk: disk, Drive: drive, Memory: max(v.memory, 1024), Kernel: v.kernel, Dir: dir})
		cancel()
		if err == nil {
			return m
		}
		console, _ := os.ReadFile(filepath.Join(dir, "console"))
		t.Logf("boot %d of %d: %v\nconsole:\n%s", try, boots, err, console)
		if try == boots {
			t.Fatal("the machine does not come up")
		}
	}
}

// compare holds what was said against a golden file.
func compare(t *testing.T, file, got string) {
	t.Helper()
	got = normal(got)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: to write it, run with -update, and read it", err)
	}
	if got != string(want) {
		t.Errorf("FAIL  it said:\n%s\nand %s has:\n%s", got, file, want)
	}
}

// buildDisk returns the folder of a suite's disk.
func buildDisk(t *testing.T, suite string) string {
	t.Helper()
	return strings.TrimSpace(output(t, "./build", suite))
}

// makeDrive makes the file system that the guest mounts: whisk, the agent, and images' layout.
func makeDrive(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	top := filepath.Join(dir, "top")
	bin := filepath.Join(top, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	output(t, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=0.0.0-vm", "-o", filepath.Join(bin, "whisk"), "../..")
	output(t, "go", "build", "-o", filepath.Join(top, "agent"), "./agent")
	images := strings.TrimSpace(output(t, "../images/build"))
	if err := os.CopyFS(filepath.Join(top, "images"), os.DirFS(images)); err != nil {
		t.Fatalf("copying the fixture images: %v", err)
	}
	// The release, as people get it.
	output(t, "make", "-s", "-C", "../..", "snapshot")
	dist := filepath.Join(top, "dist")
	if err := os.Mkdir(dist, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"dist/SHA256SUMS", "dist/whisk_*_linux_amd64.deb", "dist/whisk_*_linux_amd64.tar.gz", "install.sh"} {
		files, err := filepath.Glob("../../" + pattern)
		if err != nil || len(files) != 1 {
			t.Fatalf("the snapshot has %q, %v; want one %s", files, err, pattern)
		}
		output(t, "cp", files[0], dist)
	}
	makeScripts(t, filepath.Join(top, "e2e"))
	drive := filepath.Join(dir, "drive.ext4")
	output(t, "sh", "-c", `PATH=$PATH:/usr/sbin:/sbin mke2fs -q -t ext4 -m 0 -O ^has_journal -E root_owner=0:0 -d "$1" "$2" $(($(du -sm "$1" | cut -f1) * 5 / 4 + 32))M`, "sh", top, drive)
	return drive
}

// makeScripts makes what the end-to-end scripts need where there is no Go: their test's binary, the programs that they run,
// and testdata.
func makeScripts(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "testdata"), 0o755); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "main.test")
	output(t, "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", exe, "../..")
	// In the module's own folder, where the programs' sources are.
	output(t, "sh", "-c", `cd ../.. && exec env WHISK_TEST_PROGRAMS="$1" "$1/main.test"`, "sh", dir)
	for _, part := range []string{"scripts", "layouts"} {
		if err := os.CopyFS(filepath.Join(dir, "testdata", part), os.DirFS(filepath.Join("..", part))); err != nil {
			t.Fatalf("copying the scripts: %v", err)
		}
	}
}

// output runs a program of the host; its errors and standard error end the test.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var complaint strings.Builder
	cmd.Stderr = &complaint
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, complaint.String())
	}
	return string(b)
}
