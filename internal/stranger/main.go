// Command stranger runs a program as another user of this machine, for the tests of what another user can do.
//
//	stranger PROGRAM ARG…
//
// The suite that root starts makes it set-user-id of a user of its own. Elsewhere it takes a subordinate id of the user
// who calls it, which to the kernel is as foreign an owner as any other, in a user namespace without rights.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/userns"
	"github.com/whisk-sandbox/whisk/userns/birth"
)

const (
	stageName = "stranger-stage"
	// someID stands, inside, for one of the caller's subordinate ids.
	someID = 1000
	failed = 120
)

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "stranger:", err)
		code = failed
	}
	os.Exit(code)
}

func run() (int, error) {
	args := os.Args[1:]
	if len(args) == 0 {
		return 0, errors.New("usage: stranger PROGRAM ARG…")
	}
	if os.Args[0] == stageName {
		if err := userns.Enter(); err != nil {
			return 0, err
		}
		return 0, become(someID, someID, args)
	}
	if uid := os.Geteuid(); uid != os.Getuid() {
		return 0, become(uid, os.Getegid(), args)
	}
	m, err := userns.Find(userns.Current())
	if err != nil {
		return 0, err
	}
	if m.Single {
		return 0, fmt.Errorf("there is no other id to take: %v", m.Why)
	}
	p, err := m.Start(context.Background(), birth.Stage{
		Name: stageName, Args: args, Env: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Pdeathsig: syscall.SIGKILL,
	})
	if err != nil {
		return 0, err
	}
	status, err := p.Wait()
	if err != nil {
		return 0, err
	}
	return status.ExitStatus(), nil
}

// become executes a program as another user for good.
func become(uid, gid int, args []string) error {
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("set group id %d: %w", gid, err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("set user id %d: %w", uid, err)
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return unix.Exec(path, args, os.Environ())
}
