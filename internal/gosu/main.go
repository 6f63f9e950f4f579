// Command gosu gives up root in a process of many threads and executes a program, as the tool of that name does in the
// start scripts of well-known images. Tests of sandboxes with one id use it: the kernel moves no such process.
//
//	gosu UID PROGRAM ARG…
package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gosu:", err)
		os.Exit(120)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: gosu UID PROGRAM ARG…")
	}
	uid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	path, err := exec.LookPath(args[1])
	if err != nil {
		return err
	}
	var started sync.WaitGroup
	for range 8 {
		started.Go(func() { go func() { runtime.LockOSThread(); select {} }() })
	}
	started.Wait()
	for _, err := range []error{syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid)} {
		if err != nil {
			return err
		}
	}
	// From a thread that is not the process's first.
	failed := make(chan error)
	go func() {
		runtime.LockOSThread()
		_ = syscall.Exec("/nothing/is/here", args[1:], os.Environ()) // like a search through $PATH
		failed <- syscall.Exec(path, args[1:], os.Environ())
	}()
	return <-failed
}
