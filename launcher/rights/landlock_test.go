package rights

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFenceHandlesWhatTheKernelKnows(t *testing.T) {
	const first = 1<<13 - 1
	for name, c := range map[string]struct {
		abi  int
		want Fence
	}{
		"no landlock":        {0, Fence{}},
		"5.13":               {1, Fence{ABI: 1, FS: first}},
		"5.19, links":        {2, Fence{ABI: 2, FS: first | unix.LANDLOCK_ACCESS_FS_REFER}},
		"6.2, truncation":    {3, Fence{ABI: 3, FS: first | unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_TRUNCATE}},
		"6.7, TCP alone":     {4, Fence{ABI: 4, FS: 1<<15 - 1}},
		"6.10, devices":      {5, Fence{ABI: 5, FS: 1<<16 - 1}},
		"6.12, scopes":       {6, Fence{ABI: 6, FS: 1<<16 - 1, Scoped: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET}},
		"newer than we know": {99, Fence{ABI: 99, FS: 1<<17 - 1, Scoped: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := PlanFence(c.abi); got != c.want {
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
			if got := PlanFence(c.abi).FileAccess(c.flags); got != c.want {
				t.Errorf("got %#x, want %#x", got, c.want)
			}
		})
	}
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
		set, err := PlanFence(abi).Rules()
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
				set, err := PlanFence(abi).Rules()
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
