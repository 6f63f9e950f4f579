package keeper

import (
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// depth tells in which pid namespace a process lives: how far below that of /proc, from 1; 0: /proc does not show it. It
// reads proc_pid_status(5), which may be read of any process that is seen at all; the links below /proc/PID/ns may not, of
// one outside of the reader's user namespace.
func depth(pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if pids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			return len(strings.Fields(pids))
		}
	}
	return 0
}

// peers tells who may speak to a keeper.
type peers struct {
	home int // the depth of the command that started the keeper; 0 where /proc hides it, proc(5) hidepid
}

// newPeers is for a keeper whose parent still is what started it.
func newPeers() peers { return peers{home: depth(os.Getppid())} }

// living tells whether a process at this depth lives where commands of this user's do: not in a sandbox, whosever it is.
// All sandboxes of a user's, of all networks, belong to the same uid, but each has a pid namespace of its own, and none
// gets out of it. The user namespace says less: a command may be started in one, and the next one outside of it.
func (p peers) living(depth int) bool {
	// Hidden as the command is: processes of this keeper's own sandboxes never are, since it is root over them.
	return depth == p.home
}

// same says whether the other end is this user, who is 0 in the keeper's user namespace (SO_PEERCRED, unix(7)), and
// outside of any sandbox.
func (p peers) same(uc *net.UnixConn) bool {
	raw, err := uc.SyscallConn()
	if err != nil {
		return false
	}
	ok := false
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return
		}
		ok = cred.Uid == 0 || !wall.Up("peer credentials")
		if wall.Up("peer namespaces") {
			ok = ok && p.living(depth(int(cred.Pid))) && attached(int(fd))
		}
	})
	return ok
}

// attached tells whether the process at the other end still has its pid, so that what has been read of it was not another's.
// Kernels before 6.5 cannot tell.
func attached(fd int) bool {
	const peerPidfd = 77 // SO_PEERPIDFD, asm-generic/socket.h
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, peerPidfd)
	if err == unix.ENOPROTOOPT {
		return true
	}
	if err != nil {
		return false
	}
	defer unix.Close(pidfd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
	return err == nil && n == 0
}
