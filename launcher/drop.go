package launcher

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/procfs"
)

// In a sandbox with one id, a process that gives up root for another user is told so, and then finds that it and all
// files are still root's. PostgreSQL refuses that, and a start script that begins again as its service's user would do so
// for ever. So the process is moved: whisk stops it in its call, ptrace(2), has it make a user namespace below the
// keeper's, in which the one id is the user that it asked for, takes the capabilities that come with one, and lets the
// call return.
//
//	the process               whisk                                        in the process's name
//	setresuid(999, 999, 999)
//	  asks, seccomp_unotify   seize, interrupt, look at the registers
//	                                                                       unshare(CLONE_NEWUSER)
//	                          write /proc/PID/gid_map, uid_map
//	                                                                       drop all capabilities
//	  returns 0               registers as they were, let go
//
// The kernel moves no process of several threads (gosu is one), nor one that shares its memory. Such a process is told
// that it has succeeded, and is moved when it executes its next program.
//
// Nothing of this reads the app's memory or acts on what is in it: the user's number comes from the registers of a call
// that is under way.

// errAgain says that a call was interrupted before its process could be held, and will be made again.
var errAgain = errors.New("the call is made again")

// newUser is what a process becomes.
type newUser struct {
	uid, gid uint32
	group    bool   // gid has been asked for
	started  string // the process's start time: ids are used again
}

// asker is the process that a call comes from.
type asker struct {
	tgid, parent         int
	permitted, effective uint64 // capabilities, capabilities(7)
	inheritable          uint64
}

// askerOf reads proc_pid_status(5).
func askerOf(tid uint32) (a asker, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return a, err
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "Tgid: %d", &a.tgid); err == nil {
			continue
		}
		if _, err := fmt.Sscanf(line, "PPid: %d", &a.parent); err == nil {
			continue
		}
		if _, err := fmt.Sscanf(line, "CapInh: %x", &a.inheritable); err == nil {
			continue
		}
		if _, err := fmt.Sscanf(line, "CapPrm: %x", &a.permitted); err == nil {
			continue
		}
		if _, err := fmt.Sscanf(line, "CapEff: %x", &a.effective); err == nil {
			break
		}
	}
	if a.tgid == 0 {
		return a, fmt.Errorf("status of %d: no thread group", tid)
	}
	return a, nil
}

// has says that a process was left with other capabilities than these, and none to inherit.
func (a asker) has(permitted, effective uint64) error {
	if a.permitted != permitted || a.effective != effective || a.inheritable != 0 {
		return fmt.Errorf("it has the capabilities %#x, %#x and %#x, not %#x and %#x", a.permitted, a.effective, a.inheritable, permitted, effective)
	}
	return nil
}

// kept are the capabilities that a process has after it has given up root, by its securebits: none, unless it has asked
// to keep them, as setpriv(1) does on its way.
func (a asker) kept(securebits int64) (permitted, effective uint64) {
	const noSetuidFixup, keepCaps = 1 << 2, 1 << 4 // linux/securebits.h
	switch {
	case securebits&noSetuidFixup != 0:
		return a.permitted, a.effective
	case securebits&keepCaps != 0:
		return a.permitted, 0
	}
	return 0, 0
}

// allowed tells whether a process with these capabilities may change the ids that a call is about, credentials(7). One
// that may not gets the kernel's refusal, but for a change to the ids that it has, which the kernel decides on.
func (n *idNotice) allowed(effective uint64) bool {
	switch n.number {
	case unix.SYS_SETUID, unix.SYS_SETREUID, unix.SYS_SETRESUID:
		_, drops := n.dropsRoot()
		return !drops || effective&(1<<unix.CAP_SETUID) != 0
	case unix.SYS_SETGID, unix.SYS_SETREGID, unix.SYS_SETRESGID:
		gid, ok := n.dropsGroup()
		return !ok || gid == 0 || effective&(1<<unix.CAP_SETGID) != 0
	case unix.SYS_SETGROUPS:
		return effective&(1<<unix.CAP_SETGID) != 0
	}
	return true
}

// belowKeeper tells whether a process is in a user namespace of its own already: then the kernel's answers are right.
func belowKeeper(tid uint32) bool {
	own, err1 := os.Readlink("/proc/self/ns/user")
	its, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", tid))
	return err1 == nil && err2 == nil && own != its
}

// mapOne gives the one id a number in a user namespace; file is uid_map or gid_map.
func mapOne(tid int, file string, id uint32) error {
	return procfs.Write(fmt.Sprintf("/proc/%d/%s", tid, file), idMap(int(id)))
}

// dropsGroup tells whether a call sets the group id for good, and which.
func (n *idNotice) dropsGroup() (gid uint32, ok bool) {
	switch n.number {
	case unix.SYS_SETGID, unix.SYS_SETREGID, unix.SYS_SETRESGID:
		gid = uint32(n.args[0])
		return gid, gid != ^uint32(0)
	}
	return 0, false
}
