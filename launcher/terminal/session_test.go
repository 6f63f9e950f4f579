package terminal

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// openPty makes a pty; see pty(7).
func openPty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	m, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(m, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(m, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	s, err := unix.Open(fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	master, slave = os.NewFile(uintptr(m), "master"), os.NewFile(uintptr(s), "slave")
	t.Cleanup(func() { master.Close(); slave.Close() })
	return master, slave
}

// start runs a shell command as an app does: on the pty, in a session of its own.
func start(t *testing.T, slave *os.File, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// collect reads a file until its end, in the background.
func collect(f *os.File) <-chan string {
	got := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(f)
		got <- string(b)
	}()
	return got
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func TestAllOutputArrivesBeforeCloseReturns(t *testing.T) {
	const lines = 20000
	master, slave := openPty(t)
	cmd := start(t, slave, fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); done", lines))
	r, w := pipe(t)
	got := collect(r)
	s, err := Attach(master, Options{Out: w})
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	out := <-got
	if n := strings.Count(out, "\r\n"); n != lines || !strings.HasSuffix(out, fmt.Sprintf("line %d\r\n", lines-1)) {
		t.Errorf("got %d lines ending in %q, want %d", n, out[max(0, len(out)-40):], lines)
	}
}

func TestCloseLeavesAProcessThatKeepsTheTerminal(t *testing.T) {
	master, slave := openPty(t)
	cmd := start(t, slave, "trap '' HUP; (trap '' HUP; sleep 30) & echo left")
	r, w := pipe(t)
	got := collect(r)
	s, err := Attach(master, Options{Out: w})
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	began := time.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 20*time.Second { // of the 30 that it would wait for the process
		t.Errorf("Close took %v", took)
	}
	w.Close()
	if out := <-got; !strings.Contains(out, "left\r\n") {
		t.Errorf("got %q", out)
	}
}

func TestInputReachesTheAppAndSoDoesControlC(t *testing.T) {
	callerMaster, caller := openPty(t)
	before, err := term.GetState(int(caller.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	master, slave := openPty(t)
	cmd := start(t, slave, "trap 'echo caught; exit 3' INT; stty -echo; echo ready; read x; echo got $x; while :; do sleep 0.05; done")
	r, w := pipe(t)
	s, err := Attach(master, Options{In: caller, Out: w})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, r, "ready")
	fmt.Fprint(callerMaster, "word\r")
	expect(t, r, "got word")
	fmt.Fprint(callerMaster, "\x03")
	expect(t, r, "caught")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("exit %v, want 3", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	after, err := term.GetState(int(caller.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if *after != *before {
		t.Errorf("the caller's terminal was left in another mode: %+v, was %+v", *after, *before)
	}
}

// expect reads until the text has come.
func expect(t *testing.T, r *os.File, text string) {
	t.Helper()
	var got bytes.Buffer
	buf := make([]byte, 4096)
	_ = r.SetReadDeadline(time.Now().Add(20 * time.Second))
	for !strings.Contains(got.String(), text) {
		n, err := r.Read(buf)
		if err != nil {
			t.Fatalf("waiting for %q: %v; got %q", text, err, got.String())
		}
		got.Write(buf[:n])
	}
}

func TestDetachKeysLeaveTheAppRunning(t *testing.T) {
	callerMaster, caller := openPty(t)
	master, slave := openPty(t)
	keep, err := unix.Dup(int(master.Fd())) // the keeper's copy: the app is not hung up
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(keep)
	cmd := start(t, slave, "stty -echo; echo ready; sleep 30")
	r, w := pipe(t)
	s, err := Attach(master, Options{In: caller, Out: w, DetachKeys: []byte{16, 17}})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, r, "ready")
	fmt.Fprint(callerMaster, "\x10\x11")
	select {
	case <-s.Detached():
	case <-time.After(20 * time.Second):
		t.Fatal("the detach keys were not seen")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(uintptr(keep), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("the pty was left non-blocking for its next reader: flags %#x, %v", flags, err)
	}
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the app is gone: %v", err)
	}
}

func TestPtyFollowsTheCallersSize(t *testing.T) {
	_, caller := openPty(t)
	setSize := func(rows, cols uint16) {
		t.Helper()
		if err := unix.IoctlSetWinsize(int(caller.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
			t.Fatal(err)
		}
	}
	setSize(33, 101)
	master, slave := openPty(t)
	s, err := Attach(master, Options{In: caller, Out: caller})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wantSize(t, slave, 33, 101)
	setSize(20, 50)
	if err := unix.Kill(unix.Getpid(), unix.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	wantSize(t, slave, 20, 50)
	slave.Close()
}

func wantSize(t *testing.T, slave *os.File, rows, cols uint16) {
	t.Helper()
	var got *unix.Winsize
	for range 400 {
		var err error
		if got, err = unix.IoctlGetWinsize(int(slave.Fd()), unix.TIOCGWINSZ); err != nil {
			t.Fatal(err)
		}
		if got.Row == rows && got.Col == cols {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("got %d×%d, want %d×%d", got.Row, got.Col, rows, cols)
}

func TestAnAppThatReadsNothingBlocksNeitherOutputNorClose(t *testing.T) {
	master, slave := openPty(t)
	cmd := start(t, slave, "stty raw -echo; echo ready; sleep 0.3; echo done")
	inR, inW := pipe(t)
	go func() { _, _ = inW.Write(bytes.Repeat([]byte("x"), 1<<20)) }()
	r, w := pipe(t)
	s, err := Attach(master, Options{In: inR, Out: w})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, r, "done")
	_ = cmd.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
