package launcher

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/wall"
	"github.com/whisk-sandbox/whisk/launcher/rights"
)

// idCalls answers the calls that change the ids of processes in a sandbox with one id. A process that gives up root for
// good is moved, see drop.go; to all others it is said that they have succeeded, and most programs go on. Where a process
// cannot be moved, a start script that starts itself again as the service's user never sees that user, and would start
// itself for ever; idCalls ends it.
type idCalls struct {
	listener *os.File
	conn     syscall.RawConn
	keep     uint64     // capabilities that a sandbox's bounding set has
	backlog  []idNotice // calls that came while a process was being moved

	// What is known of processes under way, by thread and by process. The times of their start tell whether an id
	// means the same process still.
	groups map[uint32]newUser // threads that have changed their group; uid is not used
	next   map[int]newUser    // processes to be moved when they execute a program
	seen   map[uint32]drops
	// groupless are processes that have been moved and whose group has no number yet: they have kept a right to set it.
	groupless map[int]newUser

	mu    sync.Mutex
	fault *Error
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
// keep are the capabilities that programs of the sandbox may have.
func answerIDCalls(keep uint64) (*idCalls, error) {
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
	c := &idCalls{listener: os.NewFile(uintptr(fd), "seccomp notify"), keep: keep, groups: map[uint32]newUser{}, next: map[int]newUser{}, seen: map[uint32]drops{}, groupless: map[int]newUser{}}
	if c.conn, err = c.listener.SyscallConn(); err != nil {
		c.listener.Close()
		return nil, fmt.Errorf("listen for id calls: %w", err)
	}
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

// manyProcesses is how many processes are remembered before the dead among them are forgotten.
const manyProcesses = 4096

func (c *idCalls) answer() {
	most := manyProcesses
	runtime.LockOSThread() // a stopped process obeys the thread that stopped it; ptrace(2)
	for {
		var n idNotice
		if len(c.backlog) > 0 {
			n, c.backlog = c.backlog[0], c.backlog[1:]
			if !c.valid(&n) { // interrupted meanwhile; to stop its process now would only interrupt the next try
				continue
			}
		} else if err := receiveNotice(c.conn, &n); err != nil {
			return
		}
		c.judge(&n)
		if c.known() > most {
			c.forget()
			most = max(manyProcesses, 2*c.known())
		}
	}
}

func (c *idCalls) known() int {
	return len(c.groups) + len(c.next) + len(c.seen) + len(c.groupless)
}

// judge answers one call.
func (c *idCalls) judge(n *idNotice) {
	switch n.number {
	case unix.SYS_EXECVE, unix.SYS_EXECVEAT:
		c.settleGroup(n.pid, 0)
		if len(c.next) > 0 && c.executes(n) {
			return
		}
		c.pass(n)
		return
	case unix.SYS_UNSHARE: // with our mark, and not by us
		if !wall.Up("marked calls") {
			c.pass(n)
			return
		}
		c.send(&idAnswer{id: n.id, errno: -int32(unix.EPERM)})
		return
	}
	a, err := askerOf(n.pid)
	if err != nil {
		return // it has died
	}
	allowed := n.allowed(a.effective)
	gid, group := n.dropsGroup()
	switch {
	case n.number == unix.SYS_SETGROUPS && allowed:
		c.send(&idAnswer{id: n.id})
		return
	case belowKeeper(n.pid):
		if group && allowed {
			c.settleGroup(n.pid, gid)
		}
		c.pass(n)
		return
	case !allowed:
		c.send(&idAnswer{id: n.id, errno: -int32(unix.EPERM)})
		return
	}
	if group {
		c.groups[n.pid] = newUser{gid: gid, started: startTime(n.pid)}
	}
	if uid, ok := n.dropsRoot(); ok {
		if c.drops(n, a, uid) {
			return
		}
		c.countDrops(n, uid)
	}
	c.send(&idAnswer{id: n.id})
}

// drops moves a process that gives up root for good. answered: its call has returned.
func (c *idCalls) drops(n *idNotice, a asker, uid uint32) (answered bool) {
	if !canMove {
		return false
	}
	who := newUser{uid: uid, started: startTime(uint32(a.tgid))}
	if g := c.groups[n.pid]; g.started != "" && g.started == startTime(n.pid) {
		who.gid, who.group = g.gid, true
	}
	delete(c.groups, n.pid)
	if old, ok := c.next[a.tgid]; ok && old.started == who.started && old.uid == who.uid {
		return false // another of its threads was here already
	}
	ok, err := c.moveHere(n, a, who)
	if errors.Is(err, unix.EINVAL) { // it has several threads, or shares its memory; unshare(2)
		c.next[a.tgid] = who
		return true
	}
	return ok || errors.Is(err, errAgain)
}

// executes lets a process that is to be moved execute a program. answered: it has, or has been told that it cannot.
func (c *idCalls) executes(n *idNotice) (answered bool) {
	a, err := askerOf(n.pid)
	if err != nil {
		return false
	}
	who, ok := c.next[a.tgid]
	if !ok {
		return false
	}
	if who.started != startTime(uint32(a.tgid)) {
		delete(c.next, a.tgid)
		return false
	}
	ok, err = c.moveAtExec(n, a, who)
	if ok {
		delete(c.next, a.tgid)
	}
	return ok || err == nil || errors.Is(err, errAgain)
}

// settleGroup gives the group of a process that was moved its number.
func (c *idCalls) settleGroup(tid, gid uint32) {
	if len(c.groupless) == 0 {
		return
	}
	a, err := askerOf(tid)
	if err != nil {
		return
	}
	if who, ok := c.groupless[a.tgid]; ok {
		delete(c.groupless, a.tgid)
		if who.started == startTime(uint32(a.tgid)) {
			_ = mapOne(int(tid), "gid_map", gid) // without, the group shows as nogroup
		}
	}
}

// pass lets a call go to the kernel.
func (c *idCalls) pass(n *idNotice) {
	c.send(&idAnswer{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
}

func (c *idCalls) send(a *idAnswer) {
	_ = c.conn.Control(func(fd uintptr) { // ENOENT: the process has died meanwhile
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(a)))
	})
}

// valid tells whether a call still waits for its answer.
func (c *idCalls) valid(n *idNotice) (ok bool) {
	id := n.id
	_ = c.conn.Control(func(fd uintptr) {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, uintptr(unsafe.Pointer(&id)))
		ok = errno == 0
	})
	return ok
}

// letPass waits until a thread asks for a call that is made in its name, and lets it pass, or until it has stopped before
// that. Others wait meanwhile.
func (c *idCalls) letPass(tid int, number int32, stopped func() bool, until time.Time) error {
	for time.Now().Before(until) {
		var n idNotice
		got, err := false, error(nil)
		if e := c.conn.Control(func(fd uintptr) { got, err = takeNotice(fd, &n) }); e != nil || err != nil {
			return errors.Join(e, err)
		}
		switch {
		case got && int(n.pid) == tid && n.number == number:
			c.pass(&n)
			return nil
		case got:
			c.backlog = append(c.backlog, n)
		case stopped():
			return nil
		default:
			time.Sleep(10 * time.Microsecond)
		}
	}
	return os.ErrDeadlineExceeded
}

// countDrops ends a process that begins again for ever.
func (c *idCalls) countDrops(n *idNotice, uid uint32) {
	d := c.seen[n.pid]
	if at := startTime(n.pid); d.started != at {
		d = drops{started: at}
	}
	d.times++
	c.seen[n.pid] = d
	if d.times >= tooOften && c.valid(n) {
		c.end(n.pid, uid)
	}
}

// forget drops what is known of processes that are gone.
func (c *idCalls) forget() {
	for pid, d := range c.seen {
		if startTime(pid) != d.started {
			delete(c.seen, pid)
		}
	}
	for pid, g := range c.groups {
		if startTime(pid) != g.started {
			delete(c.groups, pid)
		}
	}
	for _, m := range []map[int]newUser{c.next, c.groupless} {
		for pid, u := range m {
			if startTime(uint32(pid)) != u.started {
				delete(m, pid)
			}
		}
	}
}

// receiveNotice waits for a call; an error says that there will be none.
func receiveNotice(conn interface {
	Read(func(uintptr) bool) error
}, n *idNotice) error {
	var failed error
	err := conn.Read(func(fd uintptr) bool {
		got, err := takeNotice(fd, n)
		failed = err
		return got || err != nil
	})
	return errors.Join(failed, err)
}

// takeNotice reads a call that waits, if one does.
func takeNotice(fd uintptr, n *idNotice) (got bool, err error) {
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, 0); err != nil && err != unix.EINTR {
			return false, err
		}
		if p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
			return false, os.ErrClosed // nobody is under the filter any more
		}
		if p[0].Revents&unix.POLLIN == 0 {
			return false, nil
		}
		*n = idNotice{}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(n)))
		switch errno {
		case 0:
			return true, nil
		case unix.EINTR, unix.ENOENT: // the process died before its call was read
		default:
			return false, errno
		}
	}
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
			Message: fmt.Sprintf("the image's start script changes to user %d and starts itself again, for ever: without sub-ids a sandbox has one user only", uid),
			Hint:    fmt.Sprintf("start it as that user: -u %d, or get sub-ids (docs/user-namespaces.md)", uid),
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
