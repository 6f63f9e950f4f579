package image

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.podman.io/storage/pkg/reexec"

	"github.com/whisk-sandbox/whisk/internal/testuser"
	"github.com/whisk-sandbox/whisk/userns"
	"github.com/whisk-sandbox/whisk/userns/birth"
)

// The suite runs where the package does: as root of an ordinary user's namespace.
//
//	go test (root) ──testuser──▶ whisktest ──userns──▶ suiteStage: the tests
const (
	suiteStage = "image-suite"
	pullStage  = "image-pull" // one pull in a process of its own, to be killed
)

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	switch {
	case os.Args[0] == suiteStage:
		if err := userns.Enter(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	case len(os.Args) > 1 && os.Args[1] == pullStage:
		os.Exit(pullMain(os.Args[2:]))
	case os.Getuid() == 0 || fuzzing():
		os.Exit(testuser.Main(m))
	}
	os.Exit(inNamespace())
}

// fuzzing tells whether go test has asked for a fuzz target or a list: they need no namespace, and fuzz workers speak
// to their parent on descriptors that a stage would not have.
func fuzzing() bool {
	for _, arg := range os.Args[1:] {
		for _, flag := range []string{"-test.fuzz=", "-test.fuzzworker", "-test.list="} {
			if len(arg) >= len(flag) && arg[:len(flag)] == flag {
				return true
			}
		}
	}
	return false
}

func inNamespace() int {
	m, err := userns.Find(userns.Current())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	p, err := m.Start(context.Background(), birth.Stage{
		Name: suiteStage, Args: os.Args[1:], Env: os.Environ(),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Pdeathsig: 9,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ws, err := p.Wait()
	if err != nil || ws.Signaled() {
		fmt.Fprintln(os.Stderr, "the suite ended:", err, ws.Signal())
		return 1
	}
	return ws.ExitStatus()
}

// openStore opens a store in a folder of its own.
func openStore(t testing.TB) *Store {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(Options{GraphRoot: dir + "/storage", RunRoot: dir + "/run"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pullMain is the process of pullStage: REF GRAPHROOT RUNROOT.
func pullMain(args []string) int {
	ref, err := ParseReference(args[0])
	if err == nil {
		var s *Store
		if s, err = Open(Options{GraphRoot: args[1], RunRoot: args[2]}); err == nil {
			_, err = s.Pull(context.Background(), ref, PullOptions{})
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
