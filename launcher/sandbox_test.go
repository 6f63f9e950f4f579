package launcher

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/internal/testuser"
	"github.com/whisk-sandbox/whisk/userns"
	"github.com/whisk-sandbox/whisk/userns/birth"
)

// stageName is the test binary's own hidden stage: it runs one sandbox inside a user namespace.
const stageName = "launcher-test"

func TestMain(m *testing.M) {
	if os.Args[0] == proberName {
		if err := probe(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Args[0] == stageName {
		os.Exit(stageMain())
	}
	if os.Args[0] == settlerName {
		os.Exit(settle())
	}
	if os.Args[0] == closerName {
		if err := closeRoot(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(testuser.Main(m))
}

// job is what a test asks of the stage.
type job struct {
	Dirs  Dirs
	Spec  Spec
	Base  Base
	MaxID int
	Exec  []string // run after the app has started; its output follows
}

func stageMain() int {
	fail := func(err error) int {
		e := AsError(err)
		fmt.Fprintln(os.Stderr, e.Message)
		return e.Exit
	}
	if err := userns.Enter(); err != nil {
		return fail(err)
	}
	var j job
	if err := json.NewDecoder(os.NewFile(3, "job")).Decode(&j); err != nil {
		return fail(err)
	}
	s, err := Prepare(&j.Spec, Options{Dirs: j.Dirs, Base: &j.Base, MaxID: j.MaxID})
	if err != nil {
		return fail(err)
	}
	defer s.Close()
	if err := s.Loopback(); err != nil {
		return fail(err)
	}
	if err := s.Names([]HostLine{{"192.0.2.7", []string{"other"}}}, []string{"192.0.2.1"}, ""); err != nil {
		return fail(err)
	}
	if err := s.Built(context.Background()); err != nil {
		return fail(err)
	}
	if _, err := s.Start(Stdio{os.Stdin, os.Stdout, os.Stderr}); err != nil {
		return fail(err)
	}
	if len(j.Exec) > 0 {
		p, err := s.Exec(&ExecSpec{Argv: j.Exec}, Stdio{os.Stdin, os.Stdout, os.Stderr})
		if err != nil {
			return fail(err)
		}
		<-p.Exited()
		_ = s.Signal(9)
	}
	<-s.Exited()
	// Its files belong to sub-ids: only here can they be removed.
	if err := removeTree(j.Dirs.Volumes()); err != nil {
		return fail(err)
	}
	return s.ExitCode()
}

// runHost runs a command on the machine's own root and returns output and exit code.
func runHost(t *testing.T, edit func(*job), argv ...string) (string, int) {
	t.Helper()
	data := t.TempDir()
	j := job{
		Dirs: Dirs{Data: data, Run: t.TempDir()},
		Spec: Spec{Version: SpecVersion, ID: NewID(), App: config.App{Command: argv}},
		Base: Base{Name: "host", Layers: []string{"/"}, Host: true, Config: imagespec.ImageConfig{Cmd: []string{"/bin/sh"}}},
	}
	if err := os.MkdirAll(j.Dirs.Sandbox(j.Spec.ID), 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := userns.Find(userns.Current())
	if err != nil {
		t.Fatal(err)
	}
	if !m.Single {
		j.MaxID = 65536
	}
	if edit != nil {
		edit(&j)
	}
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(doc); err != nil {
		t.Fatal(err)
	}
	w.Close()
	outr, outw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	p, err := m.Start(context.Background(), birth.Stage{Name: stageName, Env: os.Environ(), Files: []*os.File{in}, Stdout: outw, Stderr: outw})
	if err != nil {
		t.Fatal(err)
	}
	outw.Close()
	var out bytes.Buffer
	_, _ = io.Copy(&out, outr)
	st, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%q took %v", argv, time.Since(start))
	return out.String(), st.ExitStatus()
}

func TestAppRunsInNamespacesOfItsOwn(t *testing.T) {
	out, code := runHost(t, nil, "sh", "-c", "echo pid $$; id -u; hostname; cat /etc/hosts /etc/resolv.conf; ls /proc | grep -c '^[0-9]'; cat /proc/1/comm; exit 7")
	if code != 7 {
		t.Fatalf("exit code: want 7, got %d\n%s", code, out)
	}
	for _, want := range []string{"pid 2", "192.0.2.7\tother", "nameserver 192.0.2.1", "whisk-init"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in:\n%s", want, out)
		}
	}
}

func TestRightsAreDropped(t *testing.T) {
	out, code := runHost(t, nil, "cat", "/proc/self/status")
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	for _, want := range []string{"CapInh:\t0000000000000000", "CapPrm:\t00000000a80425fb", "CapEff:\t00000000a80425fb", "CapBnd:\t00000000a80425fb", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in:\n%s", want, out)
		}
	}
}

func TestOnlyThreeDescriptorsAreOpen(t *testing.T) {
	out, code := runHost(t, nil, "sh", "-c", "for f in /proc/self/fd/*; do echo ${f##*/}; done; exec 3</; echo /proc/1/fd/*")
	if code != 0 || !strings.HasPrefix(out, "0\n1\n2\n") {
		t.Errorf("exit code %d, descriptors:\n%s", code, out)
	}
}

func TestHostIsHiddenAndReadOnlyBelow(t *testing.T) {
	out, code := runHost(t, nil, "sh", "-c", "ls -A /home /root /run; echo x >/etc/made-here && cat /etc/made-here; touch /home/y && mkdir /z && echo fine")
	if code != 0 || !strings.Contains(out, "x\nfine") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if _, err := os.Stat("/etc/made-here"); err == nil {
		t.Error("the sandbox wrote to the machine's own root")
	}
}

func TestMountsAndExec(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, code := runHost(t, func(j *job) {
		j.Spec.App.Mounts = []config.Mount{
			{Kind: config.MountBind, Source: dir, Target: "/mnt/dir"},
			{Kind: config.MountBind, Source: filepath.Join(dir, "f"), Target: "/mnt/file", ReadOnly: true},
			{Kind: config.MountTmpfs, Target: "/mnt/tmp", Size: 1 << 20},
			{Kind: config.MountVolume, Source: "vol", Target: "/etc/skel"},
		}
		j.Exec = []string{"sh", "-c", "cat /mnt/dir/f /mnt/file; echo y > /mnt/dir/g; echo z > /mnt/file || echo refused; ls -A /etc/skel; df /mnt/tmp | tail -1; echo $$"}
	}, "sleep", "100")
	if code != 137 {
		t.Errorf("exit code: want 137, got %d", code)
	}
	for _, want := range []string{"mine\nmine\n", "refused", ".bashrc"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in:\n%s", want, out)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "g")); err != nil {
		t.Error("the bind mount was not written through")
	}
}

func TestExitCodesOfCommandsThatCannotRun(t *testing.T) {
	for name, c := range map[string]struct {
		argv []string
		want int
	}{
		"not found":      {[]string{"no-such-command"}, ExitNotFound},
		"not executable": {[]string{"/etc/passwd"}, ExitNotExecutable},
		"a folder":       {[]string{"/etc"}, ExitNotExecutable},
	} {
		t.Run(name, func(t *testing.T) {
			if out, code := runHost(t, nil, c.argv...); code != c.want {
				t.Errorf("exit code: want %d, got %d\n%s", c.want, code, out)
			}
		})
	}
}
