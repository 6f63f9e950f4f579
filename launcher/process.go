package launcher

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/wall"
	"github.com/whisk-sandbox/whisk/launcher/rights"
)

// command is one program to start in a sandbox, wholly resolved.
type command struct {
	argv    []string
	env     []string
	workdir string
	who     *identity
	rights  *rights.Rights
	rlimits []rlimit
	single  bool
	lone    lone
	tty     bool
	first   bool // it becomes process 1 itself
	oom     *int // OOM score, proc_pid_oom_score_adj(5); nil: the login's
}

// timerSlack is what the kernel gives a process that nobody has given another, in nanoseconds, PR_SET_TIMERSLACK(2const).
const timerSlack = 50_000

// setOOMScore is the step of a start that a login's rights may not allow.
const setOOMScore = "set OOM score"

// appScript is what a child does to become the app: it gives away all it will not need, in an order in which each
// step may still be taken, and executes the program.
func appScript(s *script, c *command) {
	s.add("make session", mustWork, unix.SYS_SETSID)
	if c.tty {
		s.add("take terminal", mustWork, unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0)
	}
	// A keyring of its own, keyrings(7): the user's session keys stay outside. Kernels without keys have none to hide,
	// and where a filter round whisk closes keyctl(2), it closes it to the app, too.
	s.add("join new session keyring", orClosed, unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0)
	for i := range c.rlimits {
		s.add("set resource limit", mustWork, unix.SYS_PRLIMIT64, 0, c.rlimits[i].resource, &c.rlimits[i].limit, 0)
	}
	if c.oom != nil {
		fd := syncFD + 1 // the lowest that is free
		value := strconv.Itoa(*c.oom)
		s.writeProc(setOOMScore, "self/oom_score_adj", value, fd)
	}
	c.lone.makeScript(s)
	s.add("set timer slack", mayFail, unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, timerSlack) // the keeper has more
	s.add("set umask", mayFail, unix.SYS_UMASK, 0o022)                                    // it returns the old one and cannot fail
	if !c.rights.NoNewPrivs {
		addFilter(s, c.rights) // while CAP_SYS_ADMIN is still there, seccomp(2)
	}
	for n := range 64 {
		if c.rights.Caps&(1<<n) == 0 {
			s.add("drop capability from the bounding set", orUnknown, unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n)
		}
	}
	if !c.single {
		groups := make([]uint32, len(c.who.groups))
		for i, g := range c.who.groups {
			groups[i] = uint32(g)
		}
		s.add("set groups", mustWork, unix.SYS_SETGROUPS, len(groups), groups)
		s.add("set group id", mustWork, unix.SYS_SETRESGID, c.who.gid, c.who.gid, c.who.gid)
		s.add("set user id", mustWork, unix.SYS_SETRESUID, c.who.uid, c.who.uid, c.who.uid)
	}
	if c.first && c.who.uid != 0 {
		// A change of user id clears it, prctl(2), and the keeper may have died meanwhile.
		s.add("die with the keeper", mustWork, unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL))
		meetKeeper(s, -1)
	}
	s.add("clear ambient capabilities", mustWork, unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	caps := c.rights.Caps
	if c.who.uid != 0 {
		caps = 0
	}
	addCaps(s, caps)
	if !wall.Up("capabilities") {
		keepCaps(s)
	}
	if c.rights.NoNewPrivs {
		s.add("set no_new_privs", mustWork, unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		addFilter(s, c.rights)
	}
	s.add("enter working directory", mustWork, unix.SYS_CHDIR, c.workdir)
	argv, env := s.word(c.argv), s.word(c.env)
	for _, file := range candidates(c.argv[0], c.env) {
		s.add("execute", tryNext, unix.SYS_EXECVE, file, argv, env)
	}
}

func addCaps(s *script, caps uint64) {
	hdr := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := &[2]unix.CapUserData{
		{Effective: uint32(caps), Permitted: uint32(caps)},
		{Effective: uint32(caps >> 32), Permitted: uint32(caps >> 32)},
	}
	s.add("set capabilities", mustWork, unix.SYS_CAPSET, hdr, data)
}

// keepCaps leaves in the inheritable set what runtimes once left there (CVE-2022-24769); only tests do it.
func keepCaps(s *script) {
	hdr := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	few := uint32(rights.DefaultCaps)
	s.add("set capabilities", mayFail, unix.SYS_CAPSET, hdr, &[2]unix.CapUserData{{Effective: few, Permitted: few, Inheritable: few}})
}

func addFilter(s *script, r *rights.Rights) {
	filter := r.Filter
	if len(filter) == 0 {
		return
	}
	prog := &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	s.add("install seccomp filter", mustWork, unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, int(r.FilterFlags), prog)
}

// streamsScript puts the three standard streams in their places and closes everything but them and the sync socket.
// All given descriptors are 10 or higher.
func streamsScript(s *script, stdio [3]int) {
	for i, fd := range stdio {
		s.add("set standard stream", mustWork, unix.SYS_DUP3, fd, i, 0)
	}
	if wall.Up("descriptors") {
		s.add("close descriptors", mustWork, unix.SYS_CLOSE_RANGE, syncFD+1, uintptr(^uint32(0)), 0)
	}
}

// leaked is the number from which on leakFolder leaves descriptors.
const leaked = 100

// leakFolder leaves a folder of the host's open for all children: the mistake that the wall "descriptors" is for
// (CVE-2024-21626). Only tests make it.
func leakFolder() {
	if fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_DUPFD, leaked)
		unix.Close(fd)
	}
}

// checkWorkdir refuses a working directory that is a descriptor or another process's (CVE-2024-21626).
func checkWorkdir(dir string) error {
	if strings.HasPrefix(dir+"/", "/proc/") && wall.Up("working directory") {
		return &Error{Message: fmt.Sprintf("working directory %q is below /proc", dir), Hint: "choose a folder of the image: -w DIR", Exit: ExitWhisk}
	}
	return nil
}

// rootScript finishes the root: what must be done inside the new pid namespace.
// It returns what will be hidden and closed. rules are Landlock's for an app that is process 1 itself, or -1; control: it is in a control group of its own.
func rootScript(s *script, rootfd, rules int, control bool, r *rights.Rights, limits []rlimit) (v veils) {
	s.add("enter root", mustWork, unix.SYS_FCHDIR, rootfd)
	// While the old /proc is in sight: a user namespace may not mount one that shows more, mount_namespaces(7).
	// The group of the sandbox's root goes on seeing all processes, proc(5).
	var hide any = "hidepid=2,gid=0"
	if !wall.Up("hidden processes") {
		hide = nil
	}
	v.hidepid = hide != nil
	s.add("mount /proc", mustWork, unix.SYS_MOUNT, "proc", "proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, hide)
	s.add("change root", mustWork, unix.SYS_PIVOT_ROOT, ".", ".")
	s.add("detach the host's root", mustWork, unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
	s.add("enter new root", mustWork, unix.SYS_CHDIR, "/")
	// Descriptor 0 is nobody's before the standard streams are in place.
	s.add("free descriptor 0", mayFail, unix.SYS_CLOSE, 0)
	if wall.Up("checks of /proc") {
		s.openProc(0)
		boundProcesses(s, limits) // while /proc/sys is writable
		s.add("close /proc", mayFail, unix.SYS_CLOSE, 0)
	}
	if control {
		controlScript(s)
	}
	for _, p := range r.ReadOnly {
		if _, err := os.Lstat(p); errors.Is(err, os.ErrNotExist) {
			continue
		}
		v.readOnly++
		s.add("make "+p+" read-only", orGone, unix.SYS_MOUNT, p, p, 0, unix.MS_BIND|unix.MS_REC, 0)
		s.add("make "+p+" read-only", orGone, unix.SYS_MOUNT, 0, p, 0, unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, 0)
	}
	for _, p := range r.Masked {
		st, err := os.Lstat(p) // the host's /proc and /sys have the same names
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		v.masked++
		switch {
		case err != nil || st.IsDir(): // of what cannot be looked at the kernel says whether it is one
			s.add("mask "+p, orGone, unix.SYS_MOUNT, "tmpfs", p, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=0k,nr_inodes=1")
		default:
			s.add("mask "+p, orGone, unix.SYS_MOUNT, "/dev/null", p, 0, unix.MS_BIND, 0)
		}
	}
	if rules >= 0 {
		s.add("enforce landlock rules", mustWork, unix.SYS_LANDLOCK_RESTRICT_SELF, rules, 0)
	}
	return v
}

// controlScript shows a sandbox's own control group in place of the keeper's, which the builder has mounted: only from
// within is it the root of what is seen, cgroup_namespaces(7).
func controlScript(s *script) {
	flags := unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if wall.Up("read-only sysfs") {
		flags |= unix.MS_RDONLY
	}
	s.add("hide the keeper's control group", mayFail, unix.SYS_UMOUNT2, "/sys/fs/cgroup", unix.MNT_DETACH)
	s.add("mount control group", mayFail, unix.SYS_MOUNT, "cgroup2", "/sys/fs/cgroup", "cgroup2", flags, 0)
}

// born is what a child of the sandbox's thread is to become.
type born struct {
	flags  uintptr       // for clone(2)
	procs  *os.File      // of the control group to enter, cgroup.Group.Procs; nil: the keeper's
	stdio  *[3]*os.File  // nil for init, which has none
	root   func(*script) // comes first, while the keeper's descriptors are still open; nil: nothing
	app    func(*script) // comes last and executes; nil for init
	appPID int32         // for init
	told   int           // for init: the pipe to tell on
	name   string        // of the program, for an error
	// orphan makes process 1 of the pid namespace its parent; tid is as for forkOrphan.
	orphan bool
	tid    int32
	// away is the pid namespace to be born in, without the keeper's memory; nil: that of the thread's children. keep are
	// descriptors that the script uses.
	away *os.File
	keep []int
}

// bear forks a child on the calling thread and waits until it has executed its program or is ready as init. It returns
// the child's pid, an orphan's as its own pid namespace counts, and a handle, which the caller must close.
func bear(b born) (pid int, h *handle, err error) {
	u, err := b.prepare()
	if err != nil {
		return 0, nil, err
	}
	defer u.close()
	return u.fork()
}

// unborn is a child whose script is written, and what the script needs.
type unborn struct {
	born
	script script
	sync   [2]int
	fds    []int // to close: the keeper's pidfd, then the standard streams and what else the script uses
}

// prepare writes the script. It may be done on any thread and well before the fork: once there has been one, whatever this
// process writes to must be copied first.
func (b born) prepare() (_ *unborn, err error) {
	u := &unborn{born: b, sync: [2]int{-1, -1}}
	defer func() {
		if err != nil {
			u.close()
		}
	}()
	if u.sync, err = highPair(); err != nil {
		return nil, err
	}
	keeper, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, fmt.Errorf("open the keeper: %w", err)
	}
	u.fds = append(u.fds, keeper)
	duplicate := func(file *os.File, what string) (int, error) {
		fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 10)
		if err != nil {
			return -1, fmt.Errorf("duplicate %s: %w", what, err)
		}
		u.fds = append(u.fds, fd)
		return fd, nil
	}
	var streams [3]int
	if b.stdio != nil {
		for i, file := range b.stdio {
			if streams[i], err = duplicate(file, "standard stream"); err != nil {
				return nil, err
			}
		}
	}
	s := &u.script
	if b.away != nil {
		if s.apart, err = newApart(); err != nil {
			return nil, err
		}
	}
	s.calls = make([]call, 0, roomForCalls)
	// Reports must find their descriptor from the first call on.
	s.add("set sync socket", mayFail, unix.SYS_DUP3, u.sync[1], syncFD, unix.O_CLOEXEC)
	if !b.orphan { // which dies with process 1, and whose parent ends at once
		s.add("die with the keeper", mustWork, unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL))
	}
	if b.away == nil { // where it is closed already
		s.add("close the keeper's socket", mustWork, unix.SYS_CLOSE, u.sync[0])
	}
	meetKeeper(s, keeper)
	// Until it executes, it is a copy of the keeper, whose memory is nobody's business in the sandbox.
	s.add("guard memory", mustWork, unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, dumpable())
	if b.procs != nil {
		fd, err := duplicate(b.procs, "control group")
		if err != nil {
			return nil, err
		}
		s.add("enter control group", mustWork, unix.SYS_WRITE, fd, "0", 1)
		s.add("make cgroup namespace", mustWork, unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	}
	if b.root != nil {
		b.root(s)
	}
	if b.app == nil {
		s.add("set pipe to tell on", mustWork, unix.SYS_DUP3, b.told, toldFD, unix.O_CLOEXEC)
		// The rest, and with it the sync socket, last of all.
		last := uintptr(^uint32(0))
		if !wall.Up("descriptors") {
			last = leaked - 1
		}
		s.add("close descriptors", mustWork, unix.SYS_CLOSE_RANGE, toldFD+1, last, 0)
		s.add("name init", mayFail, unix.SYS_PRCTL, unix.PR_SET_NAME, "whisk-init")
		addCaps(s, 1<<unix.CAP_KILL)
	} else {
		streamsScript(s, streams)
		b.app(s)
	}
	return u, nil
}

// roomForCalls is for the longest script of a plain sandbox.
const roomForCalls = 160

// close lets go of what was prepared.
func (u *unborn) close() {
	if u == nil {
		return
	}
	closeFD(&u.sync[0])
	closeFD(&u.sync[1])
	for _, fd := range u.fds {
		unix.Close(fd)
	}
	u.fds = nil
	u.script.release()
}

// fork is bear of what was prepared; once. The sandbox's thread calls it.
func (u *unborn) fork() (pid int, h *handle, err error) {
	if u.away != nil {
		pid, h, err = u.script.forkAway(u.away, u.orphan, slices.Concat(u.keep, []int{u.sync[1]}, u.fds))
	} else {
		f := &family{calls: u.script.calls, init: u.app == nil, flags: u.flags, app: u.appPID}
		pid, h, err = f.begin(u.born)
	}
	if err != nil {
		return 0, nil, err
	}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	closeFD(&u.sync[1])
	r, n, err := meetChild(u.sync[0], h.fd)
	if err != nil {
		if err == errStopped && !u.orphan {
			_ = waitFor(pid)
		}
		return 0, h, err
	}
	if n == 0 {
		return pid, h, nil
	}
	if !u.orphan {
		_ = waitFor(pid)
	}
	if n != len(r.bytes()) || int(r.Index) >= len(u.script.calls) {
		return 0, h, errDiedEarly
	}
	return 0, h, startError(u.script.calls[r.Index], unix.Errno(r.Errno), u.name)
}

// begin forks the child in the way that b asks for.
func (f *family) begin(b born) (int, *handle, error) {
	if b.orphan {
		pid, fd, err := f.forkOrphan(b.tid)
		return pid, &handle{fd: fd}, err
	}
	pid, errno := f.fork()
	if errno != 0 {
		return 0, nil, fmt.Errorf("fork: %w", errno)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		_ = waitFor(pid)
		return 0, nil, fmt.Errorf("open child: %w", err)
	}
	return pid, &handle{fd: fd}, nil
}

// startError words a failure of a child.
func startError(c call, errno unix.Errno, name string) error {
	if c.nr == unix.SYS_CHDIR {
		return &Error{Message: fmt.Sprintf("cannot enter the working directory: %v", errno), Hint: "choose one that the user may enter: -w DIR", Exit: ExitNotExecutable}
	}
	if c.nr == compare {
		return &Error{Message: c.what, Hint: "the sandbox has mounted something over it; restart the sandbox", Exit: ExitWhisk}
	}
	if c.nr == unix.SYS_PRLIMIT64 && errno == unix.EPERM {
		return &Error{Message: "a ulimit is above what this login may have", Hint: "see the hard limits: ulimit -aH", Exit: ExitWhisk}
	}
	if c.nr == unix.SYS_WRITE && errno == unix.EACCES && c.what == setOOMScore {
		return &Error{Message: "an OOM score below this login's own needs root", Hint: "see it: cat /proc/self/oom_score_adj", Exit: ExitWhisk}
	}
	if c.nr == unix.SYS_LANDLOCK_RESTRICT_SELF {
		return fenceError(errno)
	}
	if c.nr != unix.SYS_EXECVE {
		return withheld(c.what, errno)
	}
	switch errno {
	case unix.ENOENT, unix.ENOTDIR:
		return &Error{Message: fmt.Sprintf("command %s not found in the sandbox", strconv.Quote(name)), Hint: "look for it: whisk run --rm --entrypoint ls IMAGE /bin /usr/bin", Exit: ExitNotFound}
	case unix.ENOEXEC:
		return &Error{Message: fmt.Sprintf("command %s is not a program for this machine (exec format error)", strconv.Quote(name)), Hint: "see what the image is for: whisk images", Exit: ExitNotExecutable}
	}
	return &Error{Message: fmt.Sprintf("command %s cannot be executed: %s", strconv.Quote(name), strings.ToLower(errno.Error())), Exit: ExitNotExecutable}
}

// dumpable is what a copy of the keeper is to be, PR_SET_DUMPABLE(2const): 0, and nobody may look into it without
// CAP_SYS_PTRACE.
func dumpable() int {
	if wall.Up("dumpable") {
		return 0
	}
	return 1
}

func closeFD(fd *int) {
	if *fd >= 0 {
		unix.Close(*fd)
		*fd = -1
	}
}
