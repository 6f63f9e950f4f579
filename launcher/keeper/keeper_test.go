package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/internal/testuser"
	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/cgroup"
	"github.com/whisk-sandbox/whisk/userns"
)

func TestMain(m *testing.M) {
	if os.Args[0] == StageName {
		os.Exit(Main())
	}
	if os.Getenv(idleInitEnv) != "" && os.Getpid() == 1 {
		if err := idleInit(); err != nil {
			fmt.Fprintln(os.Stderr, "running the tests as process 1:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(testuser.Main(m))
}

// bench is one test's own whisk: its folders, and what must be left of it.
type bench struct {
	*testing.T
	dirs launcher.Dirs
	m    userns.Map
}

func newBench(t *testing.T) *bench {
	t.Helper()
	run, err := os.MkdirTemp("", "wk")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.MkdirTemp("", "wd")
	if err != nil {
		t.Fatal(err)
	}
	m, err := findMap()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, dirs: launcher.Dirs{Data: data, Run: run}, m: m}
	t.Cleanup(func() {
		b.nothingRuns()
		os.RemoveAll(run)
		os.RemoveAll(data)
	})
	return b
}

// nothingRuns checks that every keeper leaves by itself and takes its files along.
func (b *bench) nothingRuns() {
	b.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		entries, err := os.ReadDir(b.dirs.Networks())
		if len(entries) == 0 {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("networks are left: %v %v", entries, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (b *bench) spec(argv ...string) launcher.Spec {
	id := launcher.NewID()
	return launcher.Spec{Version: launcher.SpecVersion, ID: id, Network: "none", Remove: true, App: config.App{Image: "host", Command: argv}}
}

func (b *bench) open(s launcher.Spec) *Client {
	b.Helper()
	c, err := Open(b.Context(), b.dirs, s.KeeperName(), b.m, "")
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// run runs a sandbox in the foreground and returns its output and exit code.
func (b *bench) run(s launcher.Spec) (string, int, error) {
	b.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	out := make(chan string)
	go func() { b, _ := io.ReadAll(r); out <- string(b) }()
	code := -1
	err = b.open(s).Run(b.Context(), s, Streams{Stdin: null, Stdout: w, Stderr: w}, func(ev Event) {
		if ev.Type == EventExited {
			code = ev.Code
		}
	})
	w.Close()
	return <-out, code, err
}

func TestRunGivesOutputAndExitCode(t *testing.T) {
	b := newBench(t)
	start := time.Now()
	out, code, err := b.run(b.spec("sh", "-c", "echo hello; echo oops >&2; exit 3"))
	t.Log("took", time.Since(start))
	if err != nil || code != 3 || out != "hello\noops\n" {
		t.Errorf("want hello and oops, 3, nil; got %q, %d, %v", out, code, err)
	}
	b.nothingRuns()
	if left, _ := os.ReadDir(b.dirs.Sandboxes()); len(left) > 0 {
		t.Errorf("sandboxes are left: %v", left)
	}
}

func TestCommandNotFoundIsTold(t *testing.T) {
	b := newBench(t)
	_, _, err := b.run(b.spec("no-such-command"))
	var e *launcher.Error
	if !errors.As(err, &e) || e.Exit != launcher.ExitNotFound {
		t.Fatalf("want an error with exit 127, got %v", err)
	}
	b.nothingRuns()
	if left, _ := os.ReadDir(b.dirs.Sandboxes()); len(left) > 0 {
		t.Errorf("sandboxes are left: %v", left)
	}
}

func TestForegroundEndsWithItsCommand(t *testing.T) {
	b := newBench(t)
	s := b.spec("sleep", "1000")
	ctx, cancel := context.WithCancel(t.Context())
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	err = b.open(s).Run(ctx, s, Streams{Stdin: null, Stdout: null, Stderr: null}, func(ev Event) {
		if ev.Type == EventStarted {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("want context.Canceled, got %v", err)
	}
	b.nothingRuns()
}

func TestDetachedLogsExecAndStop(t *testing.T) {
	b := newBench(t)
	s := b.spec("sh", "-c", "echo one; echo two >&2; trap 'echo bye; exit 5' TERM; echo set; while :; do sleep 0.01; done")
	s.Remove, s.Name = false, "looper"
	c := b.open(s)
	if err := c.RunDetached(t.Context(), s, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := launcher.Find(b.dirs, s.ID[:5], ""); err != nil {
		t.Error(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	code := -1
	err = c.Exec(t.Context(), s.ID, launcher.ExecSpec{Version: launcher.SpecVersion, Argv: []string{"sh", "-c", "cat /proc/1/comm; hostname; exit 4"}}, Streams{null, w, w, nil}, func(ev Event) {
		if ev.Type == EventExited {
			code = ev.Code
		}
	})
	w.Close()
	out, _ := io.ReadAll(r)
	if err != nil || code != 4 || string(out) != "whisk-init\n"+s.ID+"\n" {
		t.Errorf("exec: got %q, %d, %v", out, code, err)
	}
	b.awaitLine(s.ID, "set")
	var stopped Event
	if err := c.Down(t.Context(), DownRequest{IDs: []string{s.ID}}, func(ev Event) { stopped = ev }); err != nil {
		t.Fatal(err)
	}
	if stopped.Type != EventStopped || stopped.Code != 5 {
		t.Errorf("stop: got %+v", stopped)
	}
	var lines []string
	if err := launcher.ReadLog(t.Context(), b.dirs, s.ID, launcher.LogOptions{Tail: -1}, func(l launcher.LogLine) error {
		lines = append(lines, l.Stream+":"+l.Text)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(lines, " ")
	for _, want := range []string{"stdout:one", "stderr:two", "stdout:bye"} {
		if !strings.Contains(got, want) {
			t.Errorf("want %s in %s", want, got)
		}
	}
	rec, err := launcher.Find(b.dirs, "looper", "")
	if err != nil || rec.State != launcher.Exited || rec.ExitCode != 5 {
		t.Errorf("record: got %+v, %v", rec, err)
	}
	b.nothingRuns()
	// A sandbox that has ended starts again where it was.
	c = b.open(s)
	if err := c.StartSandbox(t.Context(), s.ID, nil); err != nil {
		t.Fatal(err)
	}
	zero := time.Duration(0)
	if err := c.Down(t.Context(), DownRequest{Timeout: &zero, Remove: true}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestKilledKeeperLeavesNothingRunning(t *testing.T) {
	b := newBench(t)
	s := b.spec("sleep", "1000")
	s.Remove, s.Name = false, "victim"
	c := b.open(s)
	if err := c.RunDetached(t.Context(), s, nil); err != nil {
		t.Fatal(err)
	}
	rec, err := launcher.ReadRecord(b.dirs, s.ID)
	if err != nil {
		t.Fatal(err)
	}
	k, err := os.FindProcess(parent(t, rec.PID))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Kill(); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if dead(rec.PID) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if !dead(rec.PID) {
		t.Error("process 1 outlives its keeper")
	}
	rec, err = launcher.Find(b.dirs, "victim", "")
	if err != nil || rec.State != launcher.Exited || rec.ExitCode != 137 {
		t.Errorf("record: got %+v, %v", rec, err)
	}
	if err := c.StartSandbox(t.Context(), s.ID, nil); err != nil {
		t.Fatal(err)
	}
	zero := time.Duration(0)
	if err := c.Down(t.Context(), DownRequest{Timeout: &zero, Remove: true}, nil); err != nil {
		t.Fatal(err)
	}
}

// dead tells whether a process is gone, or waits to be reaped with all its threads gone: its first one may be while
// another is still giving back the descriptors, and with them the locks, that they share.
func dead(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err != nil || strings.Contains(string(b), ") Z ") && len(threads) <= 1
}

func TestUpWaitsForDependencies(t *testing.T) {
	b := newBench(t)
	shared := t.TempDir()
	if err := os.Chmod(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	mount := []config.Mount{{Kind: config.MountBind, Source: shared, Target: "/shared"}}
	app := func(name string, deps []string, ready *config.Ready, script string) launcher.Spec {
		s := b.spec("sh", "-c", script)
		s.Project, s.Name, s.Remove = "shop", "shop-"+name, false
		s.App.Name, s.App.DependsOn, s.App.Ready, s.App.Mounts = name, deps, ready, mount
		return s
	}
	specs := []launcher.Spec{
		app("web", []string{"db"}, nil, "ls -r /shared >/tmp/l; cat /tmp/l; cp /tmp/l /shared/seen; exec sleep 1000"),
		app("db", nil, &config.Ready{Cmd: []string{"test", "-e", "/shared/up"}}, "sleep 0.1; echo >/shared/up; exec sleep 1000"),
	}
	c := b.open(specs[0])
	var events []string
	each := func(ev Event) { events = append(events, ev.App+" "+ev.Type) }
	if err := c.Up(t.Context(), UpRequest{Specs: specs}, each); err != nil {
		t.Fatal(err)
	}
	want := "web waiting,db started,db ready,web started,web ready"
	if got := strings.Join(events, ","); got != want && got != strings.Replace(want, "web waiting,db started", "db started,web waiting", 1) {
		t.Errorf("events: got %s", got)
	}
	var seen []byte
	var err error
	for deadline := time.Now().Add(10 * time.Second); len(seen) == 0 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		seen, err = os.ReadFile(filepath.Join(shared, "seen"))
	}
	if err != nil || !strings.Contains(string(seen), "up") {
		t.Errorf("web started before db was ready: %q %v", seen, err)
	}
	// Up again: nothing changes.
	events = nil
	for i := range specs {
		specs[i].ID = launcher.NewID()
	}
	if err := c.Up(t.Context(), UpRequest{Specs: specs}, each); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(events, ","); strings.Count(got, "kept") != 2 {
		t.Errorf("second up: got %s", got)
	}
	events = nil
	zero := time.Duration(0)
	if err := c.Down(t.Context(), DownRequest{Timeout: &zero, Remove: true}, each); err != nil {
		t.Fatal(err)
	}
	if len(events) != 4 || events[0] != "web stopped" {
		t.Errorf("down: got %v", events)
	}
	if err := c.WaitGone(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestFailedUpStopsWhatItStarted(t *testing.T) {
	b := newBench(t)
	good, bad := b.spec("sleep", "1000"), b.spec("sh", "-c", "echo cannot go on; exit 3")
	for name, s := range map[string]*launcher.Spec{"good": &good, "bad": &bad} {
		s.Project, s.App.Name, s.Name, s.Remove = "shop", name, "shop-"+name, false
	}
	bad.App.DependsOn, bad.App.Ready = []string{"good"}, &config.Ready{TCP: 1}
	err := b.open(good).Up(t.Context(), UpRequest{Specs: []launcher.Spec{good, bad}}, nil)
	if err == nil || !strings.Contains(err.Error(), "exit code 3") || !strings.Contains(err.Error(), "cannot go on") {
		t.Errorf("want the exit code and the last line, got %v", err)
	}
	b.nothingRuns()
	recs, err := launcher.Records(b.dirs)
	if err != nil || !slices.ContainsFunc(recs, func(r launcher.Record) bool { return r.ID == bad.ID }) {
		t.Errorf("want the app that failed kept with its log, got %v, %v", recs, err)
	}
	for _, r := range recs {
		if r.State != launcher.Exited {
			t.Errorf("%s is %s, want it to have ended", r.Name, r.State)
		}
	}
}

// TestUpdateIsNoChange asks for what a sandbox was made from, whose limits were changed meanwhile.
func TestUpdateIsNoChange(t *testing.T) {
	asked := launcher.Spec{ID: launcher.NewID(), App: config.App{Image: "busybox", Memory: 64 << 20, Pids: -1}}
	rec := launcher.Record{Spec: asked, AskedLimits: &cgroup.Limits{Memory: 64 << 20, Pids: -1}}
	rec.App.Memory, rec.App.CPUs, rec.App.Pids = 128<<20, 2, 0
	asked.ID = launcher.NewID()
	if !sameSpec(rec.AskedSpec(), &asked) {
		t.Errorf("%+v is taken for a change of %+v", asked, rec)
	}
	asked.App.Memory = 128 << 20
	if sameSpec(rec.AskedSpec(), &asked) {
		t.Errorf("%+v is not taken for a change of %+v", asked, rec)
	}
}

func TestTryTime(t *testing.T) {
	for _, c := range []struct {
		name          string
		timeout, want time.Duration
	}{
		{"default", 0, 15 * time.Second},
		{"long", 10 * time.Minute, 150 * time.Second},
		{"short", time.Second, 5 * time.Second},
	} {
		if got := tryTime(&config.Ready{Timeout: c.timeout}); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestRestartOnFailure(t *testing.T) {
	b := newBench(t)
	s := b.spec("sh", "-c", "echo again; exit 1")
	s.Remove, s.Name = false, "flaky"
	s.App.Restart = config.Restart{Policy: "on-failure", Max: 2}
	c := b.open(s)
	if err := c.RunDetached(t.Context(), s, nil); err != nil {
		t.Fatal(err)
	}
	b.nothingRuns()
	rec, err := launcher.Find(b.dirs, "flaky", "")
	if err != nil || rec.Restarts != 2 || rec.ExitCode != 1 {
		t.Errorf("got %+v, %v", rec, err)
	}
}

func TestTerminal(t *testing.T) {
	b := newBench(t)
	s := b.spec("sh", "-c", "tty; stty size; read x; echo got $x; exit 6")
	s.App.TTY = true
	out := make(chan string, 1)
	code := -1
	err := b.open(s).Run(t.Context(), s, Streams{Terminal: func(master *os.File) {
		go func() {
			_, _ = master.WriteString("word\n")
			b, _ := io.ReadAll(master) // EIO is the end of a pty
			master.Close()
			out <- string(b)
		}()
	}}, func(ev Event) {
		if ev.Type == EventExited {
			code = ev.Code
		}
	})
	if err != nil || code != 6 {
		t.Fatalf("got %d, %v", code, err)
	}
	if got := <-out; !strings.Contains(got, "/dev/pts/0") || !strings.Contains(got, "got word") {
		t.Errorf("got %q", got)
	}
}

func TestNetworkedSandbox(t *testing.T) {
	b := newBench(t)
	s := b.spec("sh", "-c", "cat /etc/resolv.conf; ip -br addr; ip route; getent hosts $(hostname)")
	s.Network = s.ID
	start := time.Now()
	out, code, err := b.run(s)
	t.Log("took", time.Since(start))
	if err != nil || code != 0 || !strings.Contains(out, "nameserver") || !strings.Contains(out, "eth0") {
		t.Errorf("got %q, %d, %v", out, code, err)
	}
	t.Log(out)
}

func TestDownDuringUpEnds(t *testing.T) {
	b := newBench(t)
	for delay := range 12 {
		specs := make([]launcher.Spec, 3)
		for i := range specs {
			specs[i] = b.spec("sleep", "1000")
			name := string(rune('a' + i))
			specs[i].Project, specs[i].App.Name, specs[i].Name, specs[i].Remove = "race", name, "race-"+name, false
		}
		c := b.open(specs[0])
		up := make(chan error, 1)
		go func() { up <- c.Up(t.Context(), UpRequest{Specs: specs}, nil) }()
		time.Sleep(time.Duration(delay) * 4 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		zero := time.Duration(0)
		down := func() {
			d, err := Dial(ctx, b.dirs, "race")
			if errors.Is(err, ErrNoKeeper) {
				return
			}
			if err == nil {
				err = d.Down(ctx, DownRequest{Timeout: &zero, Remove: true}, nil)
			}
			if ctx.Err() != nil {
				t.Fatalf("down does not end: %v", err)
			}
		}
		down()
		<-up
		down() // what up has started since
		if err := c.WaitGone(ctx); err != nil {
			t.Fatalf("the keeper stays: %v", err)
		}
		cancel()
	}
}

func TestTerminatedKeeperStopsItsSandboxes(t *testing.T) {
	b := newBench(t)
	s := b.spec("sh", "-c", "trap 'exit 5' TERM; echo set; while :; do sleep 0.01; done")
	s.Remove, s.Name = false, "polite"
	c := b.open(s)
	if err := c.RunDetached(t.Context(), s, nil); err != nil {
		t.Fatal(err)
	}
	rec, err := launcher.ReadRecord(b.dirs, s.ID)
	if err != nil {
		t.Fatal(err)
	}
	k, err := os.FindProcess(parent(t, rec.PID))
	if err != nil {
		t.Fatal(err)
	}
	b.awaitLine(s.ID, "set")
	if err := k.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	b.nothingRuns()
	rec, err = launcher.Find(b.dirs, "polite", "")
	if err != nil || rec.ExitCode != 5 {
		t.Errorf("got %+v, %v", rec, err)
	}
}

// awaitLine returns when a sandbox has written a line.
func (b *bench) awaitLine(id, want string) {
	b.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		seen := false
		_ = launcher.ReadLog(b.Context(), b.dirs, id, launcher.LogOptions{Tail: -1}, func(l launcher.LogLine) error {
			seen = seen || l.Text == want
			return nil
		})
		if seen {
			return
		}
	}
	b.Fatalf("sandbox %s has not written %q", id, want)
}

// parent reads a process's parent from proc_pid_stat(5).
func parent(t *testing.T, pid int) int {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	var p, ppid int
	var comm, state string
	if _, err := fmt.Sscan(string(stat), &p, &comm, &state, &ppid); err != nil {
		t.Fatal(err)
	}
	return ppid
}
