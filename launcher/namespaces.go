package launcher

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/prefault"
	"github.com/whisk-sandbox/whisk/internal/wall"
)

// Namespaces are the mount, network, ipc, uts and cgroup namespaces of one sandbox, with the thread that sits in
// them. The thread never leaves them, so it ends with its goroutine instead of going back to the scheduler; process 1
// dies with it (PR_SET_PDEATHSIG follows the thread, prctl(2)).
type Namespaces struct {
	jobs  chan func()
	netns *os.File
	made  uintptr // CLONE_NEW*, that the thread has entered
}

// NewNamespaces makes the namespaces. It must be called inside whisk's user namespace with all capabilities. They
// belong to the Sandbox that Prepare makes of them, or must be closed.
func NewNamespaces() (*Namespaces, error) {
	n := &Namespaces{jobs: make(chan func())}
	go n.thread()
	if err := n.do(n.enter); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Namespaces) thread() {
	runtime.LockOSThread()
	prefault.Stack()
	for job := range n.jobs {
		job()
	}
}

// do runs f on the thread.
func (n *Namespaces) do(f func() error) (err error) {
	done := make(chan struct{})
	defer func() {
		if recover() != nil { // the channel is closed
			err = errors.New("the sandbox is gone")
		}
	}()
	n.jobs <- func() { defer close(done); err = f() }
	<-done
	return err
}

func (n *Namespaces) enter() error {
	const flags = unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	if !wall.Up("network namespace") {
		return n.enterAllButNetwork(flags)
	}
	if err := unix.Unshare(flags | unix.CLONE_NEWNET); err != nil {
		return withheld("make namespaces", err)
	}
	n.made = flags | unix.CLONE_NEWNET
	if err := n.openNetwork(); err != nil {
		return err
	}
	return makePrivate()
}

func (n *Namespaces) openNetwork() error {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	n.netns = os.NewFile(uintptr(fd), "netns")
	return nil
}

// enterAllButNetwork leaves the thread in the keeper's network namespace, which is the host's, and makes another one for whisk
// to work with. Only tests do it.
func (n *Namespaces) enterAllButNetwork(flags int) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and ends with it
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			err = n.openNetwork()
		}
	}()
	if <-done; err == nil {
		err = unix.Unshare(flags)
	}
	if err != nil {
		return withheld("make namespaces", err)
	}
	n.made = uintptr(flags)
	return makePrivate()
}

func makePrivate() error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return withheld("make mounts private", err)
	}
	return nil
}

// NetNS is the network namespace; it has nothing but a loopback device that is down.
func (n *Namespaces) NetNS() *os.File { return n.netns }

// Close ends the thread, and with it the namespaces if no process is in them. The kernel takes them down in its own
// time. Jobs under way must have ended.
func (n *Namespaces) Close() {
	close(n.jobs)
	if n.netns != nil {
		n.netns.Close()
	}
}
