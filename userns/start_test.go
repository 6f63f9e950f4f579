package userns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/whisk-sandbox/whisk/internal/testuser"
	"github.com/whisk-sandbox/whisk/userns/birth"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if stage, ok := stages()[os.Args[0]]; ok {
		if err := stage(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(testuser.Main(m, testuser.WithSubIDs, testuser.WithoutSubIDs, testuser.Root))
}

// stages are what this binary runs as when its first argument says so.
func stages() map[string]func() error {
	return map[string]func() error{
		"stage-report": report,
		"stage-plain":  func() error { return nil },
		"stage-enter":  Enter,
		"stage-sleep":  func() error { return errors.Join(Enter(), sleep()) },
		"stage-parent": parent,

		"stage-no-namespaces": func() error { return refusal(func() error { return setMax("0") }, Probe) },
		"stage-used-up":       func() error { return refusal(func() error { return setMax("1") }, nested) },
		"stage-chroot": func() error {
			return refusal(func() error { return errors.Join(unix.Chroot("/usr"), os.Chdir("/")) }, Probe)
		},
		"stage-filtered":     func() error { return refusal(refuseUserNamespaces, Probe) },
		"stage-no-new-privs": noPowerForHelpers,
	}
}

func sleep() error { fmt.Println("up"); time.Sleep(time.Minute); return nil }

// parent starts a stage that dies with it, says its pid, and waits to be killed.
func parent() error {
	m, err := Find(Current())
	if err != nil {
		return err
	}
	p, err := m.Start(context.Background(), birth.Stage{Name: "stage-sleep", Stdout: os.Stdout, Pdeathsig: syscall.SIGKILL})
	if err != nil {
		return err
	}
	fmt.Println(p.Pid)
	_, err = p.Wait()
	return err
}

// seen is what a stage sees of itself.
type seen struct {
	UID, GID     int
	Groups       []int
	Caps         map[string]string // CapInh, CapPrm, CapEff, CapAmb of each thread, by thread and field
	UIDMap       string
	GIDMap       string
	Setgroups    string
	Mount        string
	Chown        string
	Environ      []string
	File         string
	Session      bool
	Dir          string
	HostnameSet  string
	MountsShared bool
}

func report() error {
	if err := Enter(); err != nil {
		return err
	}
	read := func(path string) string { b, _ := os.ReadFile(path); return strings.TrimSpace(string(b)) }
	word := func(err error) string {
		if err != nil {
			return err.Error()
		}
		return "ok"
	}
	s := seen{UID: os.Getuid(), GID: os.Getgid(), Caps: map[string]string{}, Environ: os.Environ()}
	s.Groups, _ = os.Getgroups()
	s.UIDMap, s.GIDMap, s.Setgroups = read("/proc/self/uid_map"), read("/proc/self/gid_map"), read("/proc/self/setgroups")
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		for line := range strings.Lines(read("/proc/self/task/" + task.Name() + "/status")) {
			if key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t"); strings.HasPrefix(key, "Cap") {
				s.Caps[task.Name()+" "+key] = value
			}
		}
	}
	s.Mount = word(unix.Mount("tmpfs", "/proc", "tmpfs", 0, ""))
	f, err := os.CreateTemp("/proc", "x") // our own tmpfs
	if err == nil {
		s.Chown = word(f.Chown(1000, 1000))
		f.Close()
	}
	b, _ := io.ReadAll(os.NewFile(3, "given"))
	s.File = string(b)
	sid, _ := unix.Getsid(0)
	s.Session = sid == os.Getpid()
	s.Dir, _ = os.Getwd()
	s.HostnameSet = word(unix.Sethostname([]byte("inside")))
	return json.NewEncoder(os.Stdout).Encode(s)
}

func find(t *testing.T) Map {
	t.Helper()
	m, err := Find(Current())
	if err != nil {
		t.Fatalf("Find(%+v): %v", Current(), err)
	}
	return m
}

func TestStageIsRootOfItsNamespace(t *testing.T) {
	m := find(t)
	for _, m := range []Map{m, {UIDs: m.UIDs[:1], GIDs: m.GIDs[:1], Single: true}} {
		t.Run(m.String(), func(t *testing.T) { stageIsRoot(t, m) })
	}
}

func stageIsRoot(t *testing.T, m Map) {
	given, gives, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(gives, "hello")
	gives.Close()
	out, outs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Start(t.Context(), birth.Stage{
		Name: "stage-report", Env: []string{"A=b"}, Files: []*os.File{given}, Stdout: outs, Stderr: os.Stderr,
		Cloneflags: syscall.CLONE_NEWUTS, Setsid: true, Dir: "/",
	})
	outs.Close()
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	text, _ := io.ReadAll(out)
	if status, err := p.Wait(); err != nil || status != 0 {
		t.Fatalf("Wait = %v, %v, want 0", status, err)
	}
	var s seen
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatalf("report %q: %v", text, err)
	}
	if s.UID != 0 || s.GID != 0 {
		t.Errorf("ids = %d:%d, want 0:0", s.UID, s.GID)
	}
	if fields := strings.Join(strings.Fields(s.UIDMap), " "); fields != strings.Join(strings.Fields(lines(m.UIDs)), " ") {
		t.Errorf("uid_map = %q, want %q", fields, lines(m.UIDs))
	}
	if fields := strings.Join(strings.Fields(s.GIDMap), " "); fields != strings.Join(strings.Fields(lines(m.GIDs)), " ") {
		t.Errorf("gid_map = %q, want %q", fields, lines(m.GIDs))
	}
	setgroups, chown := "allow", "ok"
	if m.Single {
		setgroups, chown = "deny", "invalid argument"
	} else if len(s.Groups) != 0 {
		t.Errorf("groups = %v, want none", s.Groups)
	}
	if s.Setgroups != setgroups {
		t.Errorf("setgroups = %q, want %q", s.Setgroups, setgroups)
	}
	if !strings.HasSuffix(s.Chown, chown) {
		t.Errorf("chown to 1000 = %q, want %q", s.Chown, chown)
	}
	if s.Mount != "ok" || s.HostnameSet != "ok" {
		t.Errorf("mount = %q, sethostname = %q, want ok", s.Mount, s.HostnameSet)
	}
	for key, value := range s.Caps {
		switch {
		case strings.HasSuffix(key, "CapInh"), strings.HasSuffix(key, "CapAmb"):
			if threadsKnown && strings.Trim(value, "0") != "" {
				t.Errorf("thread %s = %s, want none", key, value)
			}
		default:
			if want := everyCapability(t); value != want && os.Getuid() != 0 {
				t.Errorf("thread %s = %s, want %s", key, value, want)
			}
		}
	}
	if len(s.Environ) != 1 || s.Environ[0] != "A=b" {
		t.Errorf("environment = %q, want A=b alone", s.Environ)
	}
	if s.File != "hello" || !s.Session || s.Dir != "/" {
		t.Errorf("descriptor 3 = %q, own session = %v, dir = %q", s.File, s.Session, s.Dir)
	}
}

// everyCapability is the set of all that this kernel knows, as proc(5) shows one.
func everyCapability(t *testing.T) string {
	t.Helper()
	var last int
	if b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err != nil {
		t.Fatal(err)
	} else if _, err := fmt.Sscan(string(b), &last); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%016x", uint64(1)<<(last+1)-1)
}

func TestStageDiesWithItsParent(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"stage-parent"}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var up string
	b := make([]byte, 0, 64)
	for bytes.Count(b, []byte("\n")) < 2 { // the pid and "up", in either order
		n, err := out.Read(b[len(b):cap(b)])
		if err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		b = b[:len(b)+n]
	}
	if n, _ := fmt.Sscan(string(b), &pid, &up); n != 2 {
		if n, _ = fmt.Sscan(string(b), &up, &pid); n != 2 {
			t.Fatalf("said %q", b)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	for range 200 {
		if syscall.Kill(pid, 0) == syscall.ESRCH {
			return
		}
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && bytes.Contains(stat, []byte(") Z ")) {
			return // nobody reaps in this container
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("stage %d outlives its parent", pid)
}

func TestUnmappedStageEndsWithoutItsParent(t *testing.T) {
	wait, release, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command("/proc/self/exe")
	cmd.Args, cmd.ExtraFiles, cmd.Stderr = []string{"stage-enter"}, []*os.File{wait}, &said
	cmd.Env = []string{"WHISK_USERNS_SYNC=3"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	release.Close()
	if err := cmd.Wait(); err == nil || !strings.Contains(said.String(), "whisk ended before") {
		t.Errorf("stage said %q, ended with %v", said.String(), err)
	}
}

func TestKillAndCancel(t *testing.T) {
	m := find(t)
	p, err := m.Start(t.Context(), birth.Stage{Name: "stage-sleep"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if status, err := p.Wait(); err != nil || status.Signal() != syscall.SIGKILL {
		t.Errorf("Wait = %v, %v, want SIGKILL", status, err)
	}
	if err := p.Kill(); err != nil {
		t.Errorf("Kill after the end: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Start(ctx, birth.Stage{Name: "stage-sleep"}); !m.Single && os.Getuid() != 0 && !errors.Is(err, context.Canceled) {
		t.Errorf("Start after cancel: %v, want %v", err, context.Canceled)
	}
}

func TestFindKnowsThisUser(t *testing.T) {
	m, u := find(t), Current()
	if host, ok := m.HostUID(0); !ok || host != u.UID {
		t.Errorf("0 → %d, %v, want %d", host, ok, u.UID)
	}
	switch u.Name {
	case testuser.WithSubIDs, testuser.Root:
		if _, ok := m.HostUID(65536); !ok || m.Single {
			t.Errorf("map of %s = %v, single %v: want 65537 ids", u.Name, m, m.Single)
		}
	case testuser.WithoutSubIDs:
		if !m.Single || m.Why == nil || m.Why.Cause != CauseNoRange || !strings.HasPrefix(m.Why.Hint(), "sudo usermod --add-subuids ") {
			t.Errorf("map of %s = %v, why %+v: want one id for lack of a range", u.Name, m, m.Why)
		}
	}
}

func TestProbeOfThisKernel(t *testing.T) {
	if err := Probe(); err != nil {
		t.Errorf("Probe: %v", err)
	}
}

func TestHelperRefusalIsQuoted(t *testing.T) {
	if os.Getuid() == 0 {
		return // root writes its maps itself
	}
	m := Map{UIDs: []Range{{0, uint32(os.Getuid()), 1}, {1, 5, 10}}, GIDs: []Range{{0, uint32(os.Getgid()), 1}}}
	_, err := m.Start(t.Context(), birth.Stage{Name: "stage-enter"})
	var e *Error
	if !errors.As(err, &e) || e.Cause != CauseHelperRefused || !strings.Contains(e.Error(), "not allowed") || strings.Contains(e.Error(), "\n") {
		t.Errorf("Start with ids that are not ours: %v", err)
	}
}

func TestManyStagesAtOnceLeaveNothing(t *testing.T) {
	m := find(t)
	count := func() int { e, _ := os.ReadDir("/proc/self/fd"); return len(e) }
	before := count()
	failed := make(chan error)
	for range 8 {
		go func() {
			p, err := m.Start(t.Context(), birth.Stage{Name: "stage-enter", Stderr: os.Stderr})
			if err == nil {
				var status syscall.WaitStatus
				if status, err = p.Wait(); status != 0 {
					err = fmt.Errorf("status %v", status)
				}
			}
			failed <- err
		}()
	}
	for range 8 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors are open, %d were", after, before)
	}
}

// BenchmarkStart is what a stage costs over a plain start of the same binary (BenchmarkPlain).
func BenchmarkStart(b *testing.B) {
	m, err := Find(Current())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		p, err := m.Start(b.Context(), birth.Stage{Name: "stage-enter", Stderr: os.Stderr})
		if err != nil {
			b.Fatal(err)
		}
		if status, err := p.Wait(); err != nil || status != 0 {
			b.Fatal(status, err)
		}
	}
}

func BenchmarkPlain(b *testing.B) {
	for b.Loop() {
		pid, err := syscall.ForkExec("/proc/self/exe", []string{"stage-plain"}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
		if err != nil {
			b.Fatal(err)
		}
		if status, err := wait(pid); err != nil || status != 0 {
			b.Fatal(status, err)
		}
	}
}

func BenchmarkFind(b *testing.B) {
	for b.Loop() {
		if _, err := Find(Current()); err != nil {
			b.Fatal(err)
		}
	}
}
