package keeper

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/userns"
)

// idleInitEnv makes the test binary process 1 of a pid namespace, one that waits for a single child, runs the tests
// there, and reaps nothing else. In such a container a killed keeper's children stay zombies.
const idleInitEnv = "KEEPER_TEST_IDLE_INIT"

// idleInit is that process 1.
func idleInit() error {
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear capabilities: %w", err)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// findMap is the map of ids for the tests' keepers. Below the idle init there is one id: newuidmap is set-user-id of a
// user that its namespace does not have.
func findMap() (userns.Map, error) {
	if os.Getenv(idleInitEnv) == "" {
		return userns.Find(userns.Current())
	}
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	return userns.Map{UIDs: []userns.Range{{Outside: uid, Size: 1}}, GIDs: []userns.Range{{Outside: gid, Size: 1}}, Single: true}, nil
}

func TestKilledKeeperLeavesNothingWhereNobodyReaps(t *testing.T) {
	if os.Getenv(idleInitEnv) == "" {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=1m")
		cmd.Args[0] = os.Args[0]
		cmd.Env = append(os.Environ(), idleInitEnv+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
			AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN},
			Pdeathsig:   syscall.SIGKILL,
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
			t.Fatalf("below an init that does not reap: %v\n%s", err, out)
		}
		return
	}
	b := newBench(t)
	s := b.spec("sleep", "1000")
	s.Remove, s.Name = false, "victim"
	c := b.open(s)
	if err := c.RunDetached(t.Context(), s, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.ExecDetached(t.Context(), s.ID, launcher.ExecSpec{Version: launcher.SpecVersion, Argv: []string{"sleep", "2000"}}, nil); err != nil {
		t.Fatal(err)
	}
	rec, err := launcher.Find(b.dirs, "victim", "")
	if err != nil {
		t.Fatal(err)
	}
	if got := alive(t); len(got) != 4 {
		t.Fatalf("want the keeper, process 1, the app and a further command, got %v", got)
	}
	if err := unix.Kill(parent(t, rec.PID), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var left []string
	for range 5000 {
		if left = alive(t); len(left) == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if len(left) > 0 {
		t.Errorf("these outlive their keeper: %v", left)
	}
	if rec, err = launcher.Find(b.dirs, "victim", ""); err != nil || rec.State != launcher.Exited {
		t.Errorf("record: got %+v, %v", rec, err)
	}
	// The next command clears up after the killed one.
	if err := c.StartSandbox(t.Context(), s.ID, nil); err != nil {
		t.Fatal(err)
	}
	zero := time.Duration(0)
	if err := c.Down(t.Context(), DownRequest{Timeout: &zero, Remove: true}, nil); err != nil {
		t.Fatal(err)
	}
}

// alive lists the processes but process 1, this one, and those that wait to be reaped.
func alive(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 || pid == os.Getpid() || dead(pid) {
			continue
		}
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if f := strings.Fields(string(stat)); len(f) > 2 { // else it has gone meanwhile
			out = append(out, strings.Join(f[:3], " "))
		}
	}
	return out
}
