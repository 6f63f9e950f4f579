package launcher

import (
	"cmp"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A sandbox with one id need not be root's. A program that is to run as another user gets a user namespace of its own
// below the keeper's, in which the one id has that user's number: it sees itself and all files as that user's. It has no
// power there that it would not have as that user in a sandbox with more ids.

// usualIDs is the highest id that a sandbox with sub-ids has; with one id no other is asked for either, so that what
// runs here runs there.
const usualIDs = 65536

// identify resolves the user that a command is to run as; empty stands for the app's own. Built must have returned nil.
func (s *Sandbox) identify(user string) (*identity, error) {
	user = cmp.Or(user, s.plan.user)
	if s.maxID != 0 {
		return lookupIdentity(s.b.root, user, s.maxID)
	}
	who, err := lookupIdentity(s.b.root, user, usualIDs)
	if err != nil {
		return nil, err
	}
	who.groups = nil // setgroups(2) is denied to whoever maps groups without a right to
	return who, nil
}

// lone is the user namespace of a program of a sandbox with one id. The zero value stands for the keeper's own.
type lone struct {
	uid, gid int
	join     int // pidfd of a process that is in it, 10 or higher; 0: none
}

// loneFor plans the namespace for a user: the app's where it has that user's number, else a new one.
func (s *Sandbox) loneFor(who *identity) lone {
	if s.maxID != 0 {
		return lone{}
	}
	l := lone{uid: who.uid, gid: who.gid}
	if s.lone != nil {
		if own, err := s.identify(""); err == nil && own.uid == who.uid && own.gid == who.gid {
			l.join = int(s.lone.Fd())
		}
	}
	return l
}

// joinScript enters a namespace that is there, while the keeper's descriptors are still open.
func (l lone) joinScript(p *script) {
	if l.join != 0 {
		p.add("enter the app's user namespace", mustWork, unix.SYS_SETNS, l.join, unix.CLONE_NEWUSER)
	}
}

// makeScript makes a new one, while the child has all the keeper's rights: a capability that it has given away it may not
// have there either, user_namespaces(7).
func (l lone) makeScript(p *script) {
	if l.join != 0 || l.uid == 0 && l.gid == 0 {
		return
	}
	const fd = syncFD + 1 // the lowest that is free
	p.add("make user namespace", mustWork, unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
	for _, m := range []struct {
		file string
		id   int
	}{{"self/gid_map", l.gid}, {"self/uid_map", l.uid}} {
		p.writeProc("write /proc/"+m.file, m.file, idMap(m.id), fd)
	}
}

// idMap is the line of uid_map or gid_map that gives id 0 of the keeper's namespace another number.
func idMap(id int) string { return fmt.Sprintf("%d 0 1\n", id) }

// keepLone keeps the app's namespace for later commands, by a handle of the app. Without, each gets one of its own.
func (s *Sandbox) keepLone(who *identity) {
	if s.maxID != 0 || who.uid == 0 && who.gid == 0 {
		return
	}
	s.app.mu.Lock()
	defer s.app.mu.Unlock()
	if s.app.fd < 0 {
		return
	}
	if fd, err := unix.FcntlInt(uintptr(s.app.fd), unix.F_DUPFD_CLOEXEC, 10); err == nil {
		s.lone = os.NewFile(uintptr(fd), "app")
	}
}
