package testuser

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// Main runs the tests of m as an ordinary user and returns the exit code for os.Exit: m.Run at once where this
// process is one, else in a copy of the test binary that runs as the user WithSubIDs, or as each of the users
// named, one after the other; Root, which must be the last, is this process. Fuzzing and listing, which need no
// particular user, are left where they are, so that new corpus files land in the checkout.
func Main(m *testing.M, as ...string) int {
	if !flag.Parsed() {
		flag.Parse()
	}
	if os.Geteuid() != 0 || flagSet("test.fuzz") || flagSet("test.fuzzworker") || flagSet("test.list") {
		return m.Run()
	}
	if len(as) == 0 {
		as = []string{WithSubIDs}
	}
	worst := 0
	for _, name := range as {
		if name == Root {
			return max(worst, m.Run())
		}
		code, err := rerun(name)
		if err != nil {
			fmt.Fprintf(os.Stderr, "testuser: running tests as %s: %v\n", name, err)
			code = 1
		}
		worst = max(worst, code)
	}
	return worst
}

func flagSet(name string) bool {
	f := flag.Lookup(name)
	return f != nil && f.Value.String() != f.DefValue
}

// rerun runs this test binary again as another user.
func rerun(name string) (code int, err error) {
	u, err := Ensure(name, name != WithoutSubIDs)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, u.Close()) }()

	// go test builds in a folder of mode 0700.
	bin, err := os.MkdirTemp("", "wtbin")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
	if err := os.Chmod(bin, 0o755); err != nil {
		return 0, err
	}
	exe := filepath.Join(bin, filepath.Base(os.Args[0]))
	if err := copyFile(exe, "/proc/self/exe", 0o755); err != nil {
		return 0, fmt.Errorf("copying test binary: %w", err)
	}
	dir, err := reachableDir(bin)
	if err != nil {
		return 0, err
	}
	args, results := redirect(os.Args[1:], filepath.Join(u.Dir, "results"))
	if err := results.make(u); err != nil {
		return 0, err
	}

	cmd := Command(u, append([]string{exe}, args...)...)
	cmd.Dir, cmd.Env = dir, append(cmd.Env, "PWD="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	code, err = supervise(cmd)
	if err != nil {
		return 0, err
	}
	return code, results.fetch()
}

// supervise runs cmd, passes signals on to it, and kills it when this process is killed.
func supervise(cmd *exec.Cmd) (int, error) {
	// The parent-death signal comes when the thread that forked ends (prctl(2)).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer close(signals)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // the only failure is that it has ended already
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// reachableDir is where the tests run: the working directory where every user may enter it, else a folder below
// scratch with a copy of its testdata.
func reachableDir(scratch string) (string, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	open := true
	for dir := cwd; ; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		if err != nil {
			return "", err
		}
		open = open && st.Mode().Perm()&0o001 != 0
		if dir == filepath.Dir(dir) {
			break
		}
	}
	if open {
		return cwd, nil
	}
	dir := filepath.Join(scratch, "src")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	data := filepath.Join(cwd, "testdata")
	if _, err := os.Stat(data); errors.Is(err, os.ErrNotExist) {
		return dir, nil
	}
	if err := os.CopyFS(filepath.Join(dir, "testdata"), os.DirFS(data)); err != nil {
		return "", fmt.Errorf("copying testdata: %w", err)
	}
	return dir, nil
}

// results are the files that go test asked the binary to write, and where the user writes them instead.
type results struct {
	dir   string
	files map[string]string // the user's path → the path asked for; a folder stands for the files in it
}

// redirect rewrites the arguments that name files to write, since go test names them in a folder of its own of
// mode 0700. The log that go test's cache is built on is dropped: a test of the kernel is never to be answered
// from a cache.
func redirect(args []string, dir string) ([]string, results) {
	r := results{dir: dir, files: map[string]string{}}
	var out []string
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		switch strings.TrimLeft(name, "-") {
		case "test.testlogfile":
			continue
		case "test.coverprofile", "test.cpuprofile", "test.memprofile", "test.blockprofile", "test.mutexprofile", "test.trace", "test.gocoverdir", "test.outputdir":
			if !ok || value == "" {
				break
			}
			to := filepath.Join(dir, strings.TrimLeft(name, "-"))
			r.files[to] = value
			arg = name + "=" + to
		}
		out = append(out, arg)
	}
	return out, r
}

func (r results) make(u User) error {
	if len(r.files) == 0 {
		return nil
	}
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		return err
	}
	for to, from := range r.files {
		if st, err := os.Stat(from); err != nil || !st.IsDir() {
			continue
		}
		if err := os.Mkdir(to, 0o700); err != nil {
			return err
		}
		if err := os.Chown(to, int(u.UID), int(u.GID)); err != nil {
			return err
		}
	}
	return os.Chown(r.dir, int(u.UID), int(u.GID))
}

// fetch brings the results to where they were asked for.
func (r results) fetch() error {
	for to, from := range r.files {
		st, err := os.Stat(to)
		if errors.Is(err, os.ErrNotExist) {
			continue // the tests ended before they wrote it
		}
		if err != nil {
			return err
		}
		if !st.IsDir() {
			if err := copyFile(from, to, 0o644); err != nil {
				return fmt.Errorf("bringing back %s: %w", filepath.Base(to), err)
			}
			continue
		}
		entries, err := os.ReadDir(to)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()), 0o644); err != nil {
				return fmt.Errorf("bringing back %s: %w", e.Name(), err)
			}
		}
	}
	return nil
}

func copyFile(to, from string, mode os.FileMode) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}
