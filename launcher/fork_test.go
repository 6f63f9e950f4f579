package launcher

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestForkCarriesOutTheCalls(t *testing.T) {
	for name, c := range map[string]struct {
		argv []string
		want int
	}{
		"the program exits":     {[]string{"/bin/sh", "-c", "exit 7"}, 7},
		"its environment":       {[]string{"/bin/sh", "-c", "test $A = b"}, 0},
		"there is no such file": {[]string{"/nowhere"}, 255},
	} {
		t.Run(name, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var s script
			s.add("exec", tryNext, unix.SYS_EXECVE, c.argv[0], c.argv, []string{"A=b"})
			f := &family{calls: s.calls}
			start := time.Now()
			pid, errno := f.fork()
			if errno != 0 {
				t.Fatal(errno)
			}
			t.Log("fork took", time.Since(start))
			var ws unix.WaitStatus
			if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil {
				t.Fatal(err)
			}
			if ws.ExitStatus() != c.want {
				t.Errorf("exit status: got %d, want %d", ws.ExitStatus(), c.want)
			}
			s.release()
		})
	}
}
