package rights

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFenceHandlesWhatTheKernelKnows(t *testing.T) {
	const first = 1<<13 - 1
	for name, c := range map[string]struct {
		abi, errata int
		want        Fence
	}{
		"no landlock":        {0, 0, Fence{}},
		"5.13":               {1, 0, Fence{ABI: 1, FS: first}},
		"5.19, links":        {2, 0, Fence{ABI: 2, FS: first | unix.LANDLOCK_ACCESS_FS_REFER}},
		"6.2, truncation":    {3, 0, Fence{ABI: 3, FS: first | unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_TRUNCATE}},
		"6.7, TCP alone":     {4, 0, Fence{ABI: 4, FS: 1<<15 - 1}},
		"6.10, devices":      {5, 0, Fence{ABI: 5, FS: 1<<16 - 1}},
		"6.12, scopes":       {6, 0, Fence{ABI: 6, FS: 1<<16 - 1, Scoped: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET}},
		"6.12.23, signals":   {6, 3, Fence{ABI: 6, FS: 1<<16 - 1, Scoped: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, Signals: true}},
		"newer than we know": {99, 7, Fence{ABI: 99, FS: 1<<17 - 1, Scoped: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, Signals: true}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := PlanFence(c.abi, c.errata); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestADescriptorIsReopenedAsItWasOpened(t *testing.T) {
	const r, w, tr, io = unix.LANDLOCK_ACCESS_FS_READ_FILE, unix.LANDLOCK_ACCESS_FS_WRITE_FILE, unix.LANDLOCK_ACCESS_FS_TRUNCATE, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	for name, c := range map[string]struct {
		abi, flags int
		want       uint64
	}{
		"for reading":                {7, unix.O_RDONLY, r | io},
		"for writing":                {7, unix.O_WRONLY | unix.O_APPEND, w | tr | io},
		"for both":                   {7, unix.O_RDWR, r | w | tr | io},
		"on a kernel with the first": {1, unix.O_RDWR, r | w},
	} {
		t.Run(name, func(t *testing.T) {
			if got := PlanFence(c.abi, 0).FileAccess(c.flags); got != c.want {
				t.Errorf("got %#x, want %#x", got, c.want)
			}
		})
	}
}

// Within the scope processes signal each other, and what is in a fence inside the scope signals what is only in the scope, as the
// app does process 1; nothing outside takes any.
func TestSignalsHaveAScope(t *testing.T) {
	abi, err := LandlockABI()
	if err != nil {
		t.Fatal(err)
	}
	f := PlanFence(abi, LandlockErrata())
	want := error(unix.EPERM)
	if !f.Signals { // this kernel has none that threads are free of
		want = nil
	}
	outside := exec.Command("sleep", "100")
	if err := outside.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = outside.Process.Kill(); _ = outside.Wait() }()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the scope on it
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			t.Error(err)
			return
		}
		if err := unix.Kill(outside.Process.Pid, 0); err != nil {
			t.Errorf("before: %v", err)
		}
		if err := f.ScopeSignals(); err != nil {
			t.Error(err)
			return
		}
		scope, err := os.StartProcess("/bin/sleep", []string{"sleep", "100"}, &os.ProcAttr{})
		if err != nil {
			t.Error(err)
			return
		}
		set, err := Fence{ABI: f.ABI, FS: f.FS}.Rules()
		if err == nil {
			err = set.Restrict()
		}
		if err != nil {
			t.Error(err)
		}
		if err := unix.Kill(outside.Process.Pid, unix.SIGCONT); err != want {
			t.Errorf("a signal to a process outside: %v, want %v", err, want)
		}
		if err := unix.Tgkill(os.Getpid(), os.Getpid(), unix.SIGURG); err != nil {
			t.Errorf("a signal to a thread of this process outside: %v", err)
		}
		if err := unix.Kill(scope.Pid, unix.SIGKILL); err != nil {
			t.Errorf("a signal to a process inside: %v", err)
		}
		_, _ = scope.Wait()
	}()
	<-done
}

// BenchmarkFence makes the rules of one sandbox; what remains at a start is one landlock_restrict_self(2).
func BenchmarkFence(b *testing.B) {
	abi, err := LandlockABI()
	if err != nil || abi == 0 {
		b.Fatalf("this kernel has no landlock (%v)", err)
	}
	fd, err := unix.Open("/", unix.O_PATH, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	for b.Loop() {
		set, err := PlanFence(abi, 0).Rules()
		if err != nil {
			b.Fatal(err)
		}
		for range 4 {
			if err := set.AllowAll(fd); err != nil {
				b.Fatal(err)
			}
		}
		set.Close()
	}
}

// BenchmarkFencedOpen is what the fence adds to each open(2): compare with BenchmarkOpen.
func BenchmarkOpen(b *testing.B) { benchmarkOpen(b, false) }

func BenchmarkFencedOpen(b *testing.B) { benchmarkOpen(b, true) }

func benchmarkOpen(b *testing.B, fenced bool) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: a fence is for ever, and the thread ends with the goroutine
		done <- func() error {
			if fenced {
				abi, err := LandlockABI()
				if err != nil {
					return err
				}
				set, err := PlanFence(abi, 0).Rules()
				if err != nil {
					return err
				}
				defer set.Close()
				fd, err := unix.Open("/", unix.O_PATH, 0)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				if err := set.AllowAll(fd); err != nil {
					return err
				}
				if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
					return err
				}
				if err := set.Restrict(); err != nil {
					return err
				}
			}
			for b.Loop() {
				fd, err := unix.Open("/usr/bin/env", unix.O_RDONLY, 0)
				if err != nil {
					return err
				}
				unix.Close(fd)
			}
			return nil
		}()
	}()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
