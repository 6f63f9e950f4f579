package launcher

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// settlerName is the test binary as a process in fresh namespaces: it takes the name of a case and prints what the check says.
const settlerName = "launcher-settle"

// settlements are mounts that go well or astray. Each is told of a root that is a tmpfs with a folder d.
var settlements = map[string]struct {
	do   func(r root, dir string) error
	want string // in the error; empty: none
}{
	"a mount in its place": {func(r root, _ string) error {
		return r.settle("d", must(newTmpfs(0, 0, 0o755)), must(r.openat2("d", unix.O_PATH, 0, 0)), unix.TMPFS_MAGIC)
	}, ""},
	"another file system": {func(r root, _ string) error {
		return r.settle("d", must(newTmpfs(0, 0, 0o755)), must(r.openat2("d", unix.O_PATH, 0, 0)), unix.PROC_SUPER_MAGIC)
	}, "file system 0x1021994, want 0x9fa0"},
	"the folder was exchanged for another": {func(r root, dir string) error {
		target := must(r.openat2("d", unix.O_PATH, 0, 0))
		check(os.Rename(dir+"/d", dir+"/e"))
		check(os.Mkdir(dir+"/d", 0o755))
		return r.settle("d", must(newTmpfs(0, 0, 0o755)), target, unix.TMPFS_MAGIC)
	}, "is not what was mounted there"},
	"the folder was exchanged for a link": {func(r root, dir string) error {
		target := must(r.openat2("d", unix.O_PATH, 0, 0))
		check(os.Rename(dir+"/d", dir+"/e"))
		check(os.Symlink("e", dir+"/d"))
		return r.settle("d", must(newTmpfs(0, 0, 0o755)), target, unix.TMPFS_MAGIC)
	}, "is not what was mounted there"},
	"something was mounted over it": {func(r root, dir string) error {
		mount := must(newTmpfs(0, 0, 0o755))
		check(move(mount, must(r.openat2("d", unix.O_PATH, 0, 0))))
		check(unix.Mount("none", dir+"/d", "tmpfs", 0, ""))
		return r.settled("d", mount, unix.TMPFS_MAGIC)
	}, "is not what was mounted there"},
	"a folder that is to be hidden was exchanged for another": {func(r root, dir string) error {
		target := must(r.openat2("d", unix.O_PATH, 0, 0))
		check(os.Rename(dir+"/d", dir+"/e"))
		check(os.Mkdir(dir+"/d", 0o755))
		return r.settle("d", must(newTmpfs(0, 0, 0o755)), target, 0)
	}, "is not what was mounted there"},
	"a user's mount in a folder that has moved": {func(r root, dir string) error {
		target := must(r.target("d", true))
		check(os.Rename(dir+"/d", dir+"/e"))
		return r.place("d", must(newTmpfs(0, 0, 0o755)), target)
	}, ""},
	"a user's mount in a folder that has moved to /dev": {func(r root, dir string) error {
		target := must(r.target("d", true))
		check(os.Mkdir(dir+"/dev", 0o755))
		check(os.Rename(dir+"/d", dir+"/dev/d"))
		return r.place("d", must(newTmpfs(0, 0, 0o755)), target)
	}, "whisk itself mounts"},
	"a device": {func(root, string) error {
		return isDevice(must(unix.Open("/dev/null", unix.O_PATH, 0)), "null")
	}, ""},
	"another device": {func(root, string) error {
		return isDevice(must(unix.Open("/dev/zero", unix.O_PATH, 0)), "null")
	}, "/dev/null is not the device 1:3"},
	"a file in the place of a device": {func(_ root, dir string) error {
		check(os.WriteFile(dir+"/null", nil, 0o666))
		return isDevice(must(unix.Open(dir+"/null", unix.O_PATH, 0)), "null")
	}, "/dev/null is not the device 1:3"},
	"a write to /proc": {func(root, string) error { return writeOOMScore() }, ""},
	"a write to what was mounted on /proc": {func(root, string) error {
		check(unix.Mount("none", "/proc", "tmpfs", 0, ""))
		check(os.Mkdir("/proc/self", 0o755))
		check(os.WriteFile("/proc/self/oom_score_adj", nil, 0o666))
		return writeOOMScore()
	}, "/proc is not the kernel's"},
	"a write to a folder of /proc mounted on /proc": {func(root, string) error {
		check(unix.Mount(fmt.Sprintf("/proc/%d/task", os.Getpid()), "/proc", "", unix.MS_BIND, ""))
		return writeOOMScore()
	}, "/proc is not the kernel's"},
	"a write to what was mounted on a file of /proc": {func(root, string) error {
		check(unix.Mount(fmt.Sprintf("/proc/%d/loginuid", os.Getpid()), fmt.Sprintf("/proc/%d/oom_score_adj", os.Getpid()), "", unix.MS_BIND, ""))
		return writeOOMScore()
	}, "open /proc/self/oom_score_adj: invalid cross-device link"},
}

func TestMountsAndWritesAreWhereTheyShouldBe(t *testing.T) {
	for name, c := range settlements {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe", name, t.TempDir())
			cmd.Args[0] = settlerName
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
			}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if got := strings.TrimSpace(string(out)); c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// settle is the process: it fails where the case could not be tried.
func settle() int {
	runtime.LockOSThread()
	check(unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""))
	dir := filepath.Join(os.Args[2], "root")
	check(os.Mkdir(dir, 0o755))
	check(unix.Mount("none", dir, "tmpfs", 0, ""))
	check(os.Mkdir(dir+"/d", 0o755))
	r := root{must(unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0))}
	if err := settlements[os.Args[1]].do(r, dir); err != nil {
		fmt.Println(AsError(err).Message)
	}
	return 0
}

// writeOOMScore carries out the script of such a write in this process itself, call by call as follow does.
func writeOOMScore() error {
	var s script
	defer s.release()
	fd := must(unix.Open("/", unix.O_PATH, 0)) // the lowest that is free
	unix.Close(fd)
	s.writeProc("write", "self/oom_score_adj", "0", fd)
	for i := range s.calls {
		if _, errno := perform(&s.calls[i]); errno != 0 {
			return fmt.Errorf("%s: %w", s.calls[i].what, errno)
		}
	}
	return nil
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "settle:", err)
		os.Exit(1)
	}
}

func must(fd int, err error) int {
	check(err)
	return fd
}
