package launcher

import (
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// killedWhileItForks asks this test binary to be a keeper that is killed so many microseconds after it began to fork.
const killedWhileItForks = "WHISK_TEST_KILLED_WHILE_IT_FORKS"

// TestKilledKeeperLeavesNoChild kills a keeper in the microseconds in which its child is not yet tied to its life. A
// process that is left holds the pipe open.
func TestKilledKeeperLeavesNoChild(t *testing.T) {
	if s := os.Getenv(killedWhileItForks); s != "" {
		forkAndDie(t, s)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		delay := rand.IntN(600)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		keeper := exec.Command(exe, "-test.run=^"+t.Name()+"$")
		keeper.Env = append(os.Environ(), killedWhileItForks+"="+strconv.Itoa(delay))
		keeper.ExtraFiles = []*os.File{w}
		if err := keeper.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		if err := keeper.Wait(); err == nil {
			t.Fatal("the keeper was not killed")
		}
		if err := r.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(r); err != nil {
			t.Fatalf("round %d: a keeper that was killed %d µs after it began to fork left its child: %v", i, delay, err)
		}
		r.Close()
	}
}

// forkAndDie does not return. The child is one that changes its user id, after which it asks a second time.
func forkAndDie(t *testing.T, delay string) {
	after, err := strconv.Atoi(delay)
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	go func() {
		for begin := time.Now(); time.Since(begin) < time.Duration(after)*time.Microsecond; {
		}
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}()
	held := os.NewFile(3, "held")
	_, _, err = bear(born{stdio: &[3]*os.File{held, held, held}, app: func(s *script) {
		s.add("die with the keeper", mustWork, unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL))
		meetKeeper(s, -1)
		s.add("execute", tryNext, unix.SYS_EXECVE, "/bin/sleep", []string{"sleep", "60"}, []string(nil))
	}})
	t.Log(err)
	time.Sleep(time.Minute)
	t.Fatal("still alive")
}

// stoppedProcess is a process that somebody has stopped, with its pidfd.
func stoppedProcess(t *testing.T) (cmd *exec.Cmd, pidfd int) {
	t.Helper()
	cmd = exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _, _ = cmd.Process.Wait() })
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pidfd) })
	return cmd, pidfd
}

// An app's root may stop a command that is on its way into the sandbox. The thread that waits for it has others to serve.
func TestStoppedChildIsKilled(t *testing.T) {
	for name, meet := range map[string]func(fd, pidfd, pid int) error{
		"which executes":     func(fd, pidfd, _ int) error { _, _, err := meetChild(fd, pidfd); return err },
		"which forks for it": func(fd, _, pid int) error { _, _, err := readOrphan(fd, pid); return err },
	} {
		t.Run(name, func(t *testing.T) {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(pair[0])
			defer unix.Close(pair[1])
			cmd, pidfd := stoppedProcess(t)
			if err := meet(pair[0], pidfd, cmd.Process.Pid); err != errStopped {
				t.Errorf("got %v, want %v", err, errStopped)
			}
			if err := cmd.Wait(); cmd.ProcessState == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
				t.Errorf("it was not killed: %v", err)
			}
		})
	}
}

// One that is only slow is waited for.
func TestSlowChildIsWaitedFor(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	cmd, pidfd := stoppedProcess(t)
	if err := cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(2500*time.Millisecond, func() { unix.Close(pair[1]) })
	if _, n, err := meetChild(pair[0], pidfd); n != 0 || err != nil {
		t.Errorf("got %d bytes and %v, want the end", n, err)
	}
	if err := cmd.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("it is gone: %v", err)
	}
}
