package userns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/userns/birth"
)

// refusal enters a namespace, builds a wall there, and says what try runs into.
func refusal(wall, try func() error) error {
	if err := Enter(); err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := wall(); err != nil {
		return fmt.Errorf("building the wall: %w", err)
	}
	return tell(try())
}

func tell(err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return fmt.Errorf("no *Error: %w", err)
	}
	fmt.Printf("%s|%s|%s\n", e.Cause, e.Error(), e.Hint())
	return nil
}

// setMax sets the limit of this namespace; each has its own (namespaces(7)).
func setMax(n string) error { return os.WriteFile("/proc/sys/user/max_user_namespaces", []byte(n), 0) }

// nested starts one stage that stays, and a second one where there is room for one.
func nested() error {
	m := Map{UIDs: []Range{{0, 0, 1}}, GIDs: []Range{{0, 0, 1}}, Single: true}
	p, err := m.Start(context.Background(), birth.Stage{Name: "stage-sleep", Pdeathsig: syscall.SIGKILL})
	if err != nil {
		return err
	}
	_, err = m.Start(context.Background(), birth.Stage{Name: "stage-sleep", Pdeathsig: syscall.SIGKILL})
	return errors.Join(err, p.End())
}

// refuseUserNamespaces is the wall that container engines build: clone(2) with CLONE_NEWUSER is EPERM.
func refuseUserNamespaces() error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 4, K: unix.SYS_CLONE},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: unix.CLONE_NEWUSER},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.CLONE_NEWUSER},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
}

// noPowerForHelpers is a service that may not gain privileges.
func noPowerForHelpers() error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, err := Find(Current())
	return tell(err)
}

func TestRefusalsOfTheKernelAreNamed(t *testing.T) {
	m := find(t)
	for stage, want := range map[string]string{
		"stage-no-namespaces": "max-zero|user namespaces are off: user.max_user_namespaces is 0: no space left on device|sudo sysctl -w user.max_user_namespaces=",
		"stage-used-up":       "exhausted|no more namespaces fit: user.max_user_namespaces is 1",
		"stage-chroot":        "chroot|user namespaces cannot be made from within a chroot",
		"stage-filtered":      "seccomp|a seccomp filter refuses user namespaces",
	} {
		t.Run(stage, func(t *testing.T) {
			out, outs, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			p, err := m.Start(t.Context(), birth.Stage{Name: stage, Stdout: outs, Stderr: os.Stderr})
			outs.Close()
			if err != nil {
				t.Fatal(err)
			}
			said := make([]byte, 1000)
			n, _ := out.Read(said)
			if status, err := p.Wait(); err != nil || status != 0 || !strings.HasPrefix(string(said[:n]), want) {
				t.Errorf("stage ended with %v, %v and said\n%s\nwant %s", status, err, said[:n], want)
			}
		})
	}
}

func TestHelpersWithoutPowerAreNamed(t *testing.T) {
	if os.Getuid() == 0 || find(t).Single {
		return // nobody needs the helpers here
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"stage-no-new-privs"}
	out, err := cmd.CombinedOutput()
	if want := "helper-powerless|/usr/bin/newuidmap has no power here: no_new_privs is set"; err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("%v: %s\nwant %s", err, out, want)
	}
}

func TestMissingFolderIsNoRefusal(t *testing.T) {
	_, err := find(t).Start(t.Context(), birth.Stage{Name: "stage-enter", Dir: "/nowhere"})
	var e *Error
	if err == nil || errors.As(err, &e) || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("Start in a folder that is not there: %v, want plain ENOENT", err)
	}
}
