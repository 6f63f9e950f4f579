package launcher

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestForkRunsTheScriptAndExitsAsTheApp(t *testing.T) {
	for name, c := range map[string]struct {
		argv []string
		init bool
		want int
	}{
		"app exits":          {[]string{"/bin/sh", "-c", "exit 7"}, false, 7},
		"app below init":     {[]string{"/bin/sh", "-c", "sleep 0.01; exit 9"}, true, 9},
		"app killed":         {[]string{"/bin/sh", "-c", "kill -9 $$"}, true, 137},
		"orphans are reaped": {[]string{"/bin/sh", "-c", "(sleep 0.01 &) ; sleep 0.05; exit 3"}, true, 3},
	} {
		t.Run(name, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var s script
			s.add("exec", tryNext, unix.SYS_EXECVE, c.argv[0], c.argv, []string{"A=b"})
			f := &family{first: s.calls}
			if c.init {
				f.first, f.second = nil, s.calls
			}
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
