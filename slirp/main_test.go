package slirp

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"github.com/whisk-sandbox/whisk/internal/testuser"
)

// insideEnv marks the run inside fresh user, network and mount namespaces, where the tests are root and the network
// namespace stands for the host's.
const insideEnv = "SLIRP_TEST_INSIDE"

// noPingEnv leaves the host's ping_group_range as the kernel made it: nobody may ping.
const noPingEnv = "SLIRP_TEST_NO_PING"

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(insideEnv) != "":
		os.Exit(m.Run())
	case os.Geteuid() == 0:
		os.Exit(testuser.Main(m)) // comes back here as an ordinary user
	}
	os.Exit(runInside())
}

func runInside() int {
	signal.Ignore(os.Interrupt)
	cmd := insideCommand(os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "starting the tests in namespaces of their own:", err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// insideCommand is this program in fresh namespaces.
func insideCommand(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	return cmd
}
