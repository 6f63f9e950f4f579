package main

import (
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/whisk-sandbox/whisk/internal/testuser"
)

// What the first process of the suite hands to the one that runs the tests as an ordinary user. testuser passes on
// every variable that begins with WHISK_.
const (
	envBinary = "WHISK_TEST_BINARY" // whisk itself, built once
	envBreach = "WHISK_TEST_BREACH" // a whisk whose walls can be taken down, see internal/wall
	envImages = "WHISK_TEST_IMAGES" // the fixture images' OCI layout
	envOneID  = "WHISK_TEST_ONE_ID" // set where this user owns no subordinate ids

	// envPrograms is a folder: what the scripts run is built into it, and nothing else happens. With this test's own binary
	// and testdata it is all that a machine without Go needs, which is then told of it by the variables above.
	envPrograms = "WHISK_TEST_PROGRAMS"
)

// TestMain builds whisk as it is released and the fixture images, then runs the tests as an ordinary user: started
// by root, those of TestOneID as a user without subordinate ids and all others as one with them.
//
// The scripts run the built binary and not this one under another name: whisk starts itself again as /proc/self/exe,
// and that must not be a test suite.
func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	flag.Parse()
	if dir := os.Getenv(envPrograms); dir != "" {
		if err := buildPrograms(dir); err != nil {
			fmt.Fprintln(os.Stderr, "main_test:", err)
			return 1
		}
		return 0
	}
	if flag.Lookup("test.list").Value.String() != "" || os.Getenv(envBinary) != "" {
		return m.Run()
	}
	dir, err := prepare()
	if dir != "" {
		defer os.RemoveAll(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "main_test:", err)
		return 1
	}
	if os.Geteuid() != 0 {
		return m.Run()
	}
	oneID, err := runAsOneID(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "main_test:", err)
		return 1
	}
	os.Args = slices.Insert(os.Args, 1, "-test.skip=^TestOneID$")
	return max(testuser.Main(m), oneID)
}

// prepare builds whisk and the fixture images. The folder it returns is every user's to read.
func prepare() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "whisk-test"); err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return dir, err
	}
	if err := buildPrograms(dir); err != nil {
		return dir, err
	}
	images := exec.Command("testdata/images/build")
	images.Stderr = os.Stderr
	layout, err := images.Output()
	if err != nil {
		return dir, fmt.Errorf("building the fixture images: %w", err)
	}
	return dir, errors.Join(os.Setenv(envBinary, filepath.Join(dir, "whisk")), os.Setenv(envBreach, filepath.Join(dir, "breach", "whisk")), os.Setenv(envImages, strings.TrimSpace(string(layout))))
}

// buildPrograms builds what the scripts run: whisk, one without walls, and their helpers.
func buildPrograms(dir string) error {
	for _, p := range []struct {
		what string
		args []string
	}{
		{"whisk", []string{"-ldflags=-s -w -X main.version=0.0.0-test", "-o", filepath.Join(dir, "whisk"), "."}},
		{"the scripts' internet", []string{"-o", filepath.Join(dir, "outside"), "./internal/outside"}},
		{"a whisk without walls", []string{"-tags", "breach", "-ldflags=-s -w", "-o", filepath.Join(dir, "breach", "whisk"), "."}},
		{"internal/without", []string{"-ldflags=-s -w", "-o", filepath.Join(dir, "without"), "./internal/without"}},
		{"internal/gosu", []string{"-ldflags=-s -w", "-o", filepath.Join(dir, "gosu"), "./internal/gosu"}},
	} {
		build := exec.Command("go", append([]string{"build", "-trimpath"}, p.args...)...)
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // images have no libraries for them
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", p.what, err, out)
		}
	}
	if err := installWithout(dir); err != nil {
		return err
	}
	return buildStranger(filepath.Join(dir, "stranger"))
}

// installWithout makes suidwithout of internal/without, which as root becomes set-user-id for the tests' user alone.
func installWithout(dir string) error {
	program, err := os.ReadFile(filepath.Join(dir, "without"))
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "suidwithout")
	if err := os.WriteFile(file, program, 0o755); err != nil || os.Geteuid() != 0 {
		return err
	}
	u, err := testuser.Ensure(testuser.WithSubIDs, true)
	if err != nil {
		return err
	}
	return errors.Join(u.Close(), os.Chown(file, 0, int(u.GID)), os.Chmod(file, 0o750|os.ModeSetuid))
}

// buildStranger builds internal/stranger, and as root makes it set-user-id of a user of its own.
func buildStranger(file string) error {
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, "./internal/stranger")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building internal/stranger: %w\n%s", err, out)
	}
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := testuser.Ensure(testuser.WithoutSubIDs, false)
	if err != nil {
		return err
	}
	return errors.Join(u.Close(), os.Chown(file, int(u.UID), int(u.GID)), os.Chmod(file, 0o755|os.ModeSetuid|os.ModeSetgid))
}

// runAsOneID runs TestOneID, where the flags ask for it, as a user without subordinate ids.
func runAsOneID(dir string) (code int, err error) {
	u, err := testuser.Ensure(testuser.WithoutSubIDs, false)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	// go test builds in a folder of mode 0700, and the checkout may be in one.
	exe := filepath.Join(dir, "main.test")
	if err := os.WriteFile(exe, self, 0o755); err != nil {
		return 0, err
	}
	if err := os.CopyFS(filepath.Join(dir, "testdata"), os.DirFS("testdata")); err != nil {
		return 0, err
	}
	args := []string{exe}
	for _, arg := range os.Args[1:] {
		// Files that go test wants back come from the other run, which is the greater part.
		if name, _, _ := strings.Cut(arg, "="); !slices.Contains([]string{"-test.testlogfile", "-test.coverprofile", "-test.gocoverdir", "-test.outputdir"}, name) {
			args = append(args, arg)
		}
	}
	args = slices.Insert(args, 1, "-test.skip=^Test([^O].*|O[^n].*)$")
	cmd := testuser.Command(u, args...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Env, envOneID+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return cmd.ProcessState.ExitCode(), nil
}

// TestScripts runs the manual of whisk's behaviour: testdata/scripts.
func TestScripts(t *testing.T) {
	testscript.Run(t, params("testdata/scripts"))
}

// TestOneID runs the scripts of a user who owns no subordinate ids. Where the suite was not started by root, so that
// no such user can be made, it hides the helpers that would map them.
func TestOneID(t *testing.T) {
	p := params("testdata/scripts/one-id")
	if os.Getenv(envOneID) == "" {
		path, err := pathWithout(t.TempDir(), "newuidmap", "newgidmap")
		if err != nil {
			t.Fatal(err)
		}
		setup := p.Setup
		p.Setup = func(env *testscript.Env) error {
			env.Setenv("PATH", path)
			return setup(env)
		}
	}
	testscript.Run(t, p)
}

func params(dir string) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		Setup:               setup,
		Cmds:                commands,
		Condition:           condition,
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
	}
}

// setup gives a script folders of its own and sees to it that nothing outlives it.
//
//	$HOME    $WORK/home, with whisk's store below it
//	$IMAGES  the fixture images' OCI layout
//	$LAYOUTS data folders as whisks of before have left them
//	$BREACH  the folder of the whisk whose walls can be taken down
//	$WHISK_TEST_ID marks every process that the script starts
func setup(env *testscript.Env) error {
	w := &watch{work: env.WorkDir, id: rand.Text()}
	var err error
	// Short, and not below $WORK: a unix socket's path ends at 107 bytes (unix(7)), and users have it short, too.
	if w.run, err = os.MkdirTemp("", "r"); err != nil {
		return err
	}
	home := filepath.Join(env.WorkDir, "home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	layouts, err := filepath.Abs("testdata/layouts")
	if err != nil {
		return err
	}
	bin := filepath.Dir(os.Getenv(envBinary))
	for key, value := range map[string]string{
		"HOME":            home,
		"USER":            os.Getenv("USER"),
		"LANG":            "C.UTF-8",
		"XDG_DATA_HOME":   filepath.Join(home, ".local/share"),
		"XDG_CONFIG_HOME": filepath.Join(home, ".config"),
		"XDG_CACHE_HOME":  filepath.Join(home, ".cache"),
		"XDG_STATE_HOME":  filepath.Join(home, ".local/state"),
		"XDG_RUNTIME_DIR": w.run,
		"PATH":            bin + ":" + env.Getenv("PATH") + ":/usr/sbin:/sbin",
		"BREACH":          filepath.Dir(os.Getenv(envBreach)),
		"IMAGES":          os.Getenv(envImages),
		"LAYOUTS":         layouts,
		"WHISK_TEST_ID":   w.id,
	} {
		env.Setenv(key, value)
	}
	env.Values[watchKey{}] = w
	env.Defer(func() { w.end(env.T()) })
	return nil
}

// pathWithout makes a folder that holds every program on PATH but the ones named.
func pathWithout(dir string, names ...string) (string, error) {
	for _, from := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		entries, err := os.ReadDir(from)
		if err != nil {
			continue // PATH may name folders that are not there
		}
		for _, e := range entries {
			if slices.Contains(names, e.Name()) {
				continue
			}
			if err := os.Symlink(filepath.Join(from, e.Name()), filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, os.ErrExist) {
				return "", err
			}
		}
	}
	return dir, nil
}
