package launcher

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/launcher/rights"
)

// idCalls answers the calls that change the ids of processes in a sandbox with one id. They are told that they
// succeeded, and most programs go on. A start script that starts itself again as the service's user never sees that
// user, and would start itself for ever; idCalls ends it.
type idCalls struct {
	listener *os.File
	mu       sync.Mutex
	fault    *Error
}

// idNotice is struct seccomp_notif and idAnswer struct seccomp_notif_resp, linux/seccomp.h.
type idNotice struct {
	id     uint64
	pid    uint32
	flags  uint32
	number int32
	arch   uint32
	ip     uint64
	args   [6]uint64
}

type idAnswer struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// answerIDCalls puts the calling thread, and with it all processes that it will fork, under a filter that asks this
// process for the answers, seccomp_unotify(2). Where another filter asks somebody already, as some container engines
// do, the kernel answers alone.
func answerIDCalls() (*idCalls, error) {
	filter, err := rights.IDFilter(unix.SECCOMP_RET_USER_NOTIF)
	if err != nil {
		return nil, err
	}
	fd, err := setFilter(filter, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	if errors.Is(err, unix.EBUSY) {
		if filter, err = rights.IDFilter(unix.SECCOMP_RET_ERRNO); err == nil {
			_, err = setFilter(filter, 0)
		}
		return &idCalls{}, err
	}
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // for the runtime's poller
		unix.Close(fd)
		return nil, fmt.Errorf("listen for id calls: %w", err)
	}
	c := &idCalls{listener: os.NewFile(uintptr(fd), "seccomp notify")}
	go c.answer()
	return c, nil
}

func setFilter(filter []unix.SockFilter, flags uintptr) (int, error) {
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return -1, fmt.Errorf("install filter of id calls: %w", errno)
	}
	return int(fd), nil
}

// drops counts how often a thread has given up user id 0 for good.
type drops struct {
	started string // the thread's start time: ids are used again
	times   int
}

// tooOften is the change of user id that cannot be meant: a first one for good leaves no way to a second one, and a
// program is not started twice in one process but for changing its user.
const tooOften = 3

func (c *idCalls) answer() {
	conn, err := c.listener.SyscallConn()
	if err != nil {
		return
	}
	seen := map[uint32]drops{}
	for {
		var n idNotice
		if err := receiveNotice(conn, &n); err != nil {
			return
		}
		if uid, ok := n.dropsRoot(); ok {
			d := seen[n.pid]
			if at := startTime(n.pid); d.started != at {
				d = drops{started: at}
			}
			d.times++
			seen[n.pid] = d
			if d.times >= tooOften {
				c.end(n.pid, uid)
			}
			if len(seen) > 4096 {
				for pid, d := range seen {
					if startTime(pid) != d.started {
						delete(seen, pid)
					}
				}
			}
		}
		a := idAnswer{id: n.id}
		_ = conn.Control(func(fd uintptr) { // ENOENT: the process has died meanwhile
			_, _, _ = unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&a)))
		})
	}
}

// receiveNotice waits for a call; an error says that there will be none.
func receiveNotice(conn interface {
	Read(func(uintptr) bool) error
}, n *idNotice) error {
	var failed error
	err := conn.Read(func(fd uintptr) bool {
		for {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if _, err := unix.Poll(p, 0); err != nil && err != unix.EINTR {
				failed = err
				return true
			}
			if p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
				failed = os.ErrClosed // nobody is under the filter any more
				return true
			}
			if p[0].Revents&unix.POLLIN == 0 {
				return false
			}
			*n = idNotice{}
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(n)))
			switch errno {
			case 0:
				return true
			case unix.EINTR, unix.ENOENT: // the process died before its call was read
			default:
				failed = errno
				return true
			}
		}
	})
	return errors.Join(failed, err)
}

// dropsRoot tells whether a call would give up user id 0 for good, and for which user.
func (n *idNotice) dropsRoot() (uid uint32, ok bool) {
	changed := func(args ...uint64) (uint32, bool) {
		for _, a := range args {
			if id := uint32(a); id == 0 || id == ^uint32(0) { // -1 leaves an id as it is
				return 0, false
			}
		}
		return uint32(args[0]), true
	}
	switch n.number {
	case unix.SYS_SETUID:
		return changed(n.args[0])
	case unix.SYS_SETREUID:
		return changed(n.args[:2]...)
	case unix.SYS_SETRESUID:
		return changed(n.args[:3]...)
	}
	return 0, false
}

// startTime is field 22 of /proc/PID/stat, proc_pid_stat(5); empty when the thread is gone.
func startTime(pid uint32) string {
	b, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/stat")
	if err != nil {
		return ""
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return ""
	}
	return string(fields[19])
}

// end kills a process that starts itself for ever.
func (c *idCalls) end(pid, uid uint32) {
	c.mu.Lock()
	if c.fault == nil {
		c.fault = &Error{
			Message: fmt.Sprintf("the image's start script changes to user %d and starts itself again, for ever: without sub-ids a sandbox has user 0 only", uid),
			Hint:    "get sub-ids (docs/user-namespaces.md), or start a program of the image that stays root: --entrypoint",
			Exit:    ExitWhisk,
		}
	}
	c.mu.Unlock()
	_ = unix.Kill(int(pid), unix.SIGKILL)
}

// Fault says why a process of a sandbox with one id was killed for starting itself for ever; nil: none was.
func (s *Sandbox) Fault() *Error {
	if s.ids == nil {
		return nil
	}
	s.ids.mu.Lock()
	defer s.ids.mu.Unlock()
	return s.ids.fault
}

func (c *idCalls) close() {
	if c != nil && c.listener != nil {
		c.listener.Close()
	}
}
