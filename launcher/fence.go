package launcher

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/wall"
	"github.com/whisk-sandbox/whisk/launcher/rights"
	"github.com/whisk-sandbox/whisk/mend"
)

// The fence is Landlock's: the second wall round a sandbox's files. Everything below the sandbox's root is allowed,
// whatever is mounted there, and nothing else, so that a descriptor or a mount that escapes the first wall leads
// nowhere.
//
// The thread that all programs of a sandbox are forked from enters it once init has made the last mount, since mounting
// is what Landlock forbids. So the app and all later commands are behind the same fence and may look at each other, as a
// debugger must; init, a copy of the keeper, is outside and out of their reach.

// planFence decides whether there is to be a fence. missing lists the walls that the user gives up where they cannot be
// had. An app with CAP_SYS_ADMIN has none: it was given that to mount, which Landlock forbids.
func planFence(r *rights.Rights, unconfined bool, missing []string) (rights.Fence, error) {
	if unconfined || r.Caps&(1<<unix.CAP_SYS_ADMIN) != 0 || !wall.Up("landlock") {
		return rights.Fence{}, nil
	}
	abi, err := rights.LandlockABI()
	if err != nil {
		if slices.Contains(missing, "landlock") || !wall.Up(failsClosed) {
			return rights.Fence{}, nil
		}
		return rights.Fence{}, fenceError(err)
	}
	return rights.PlanFence(abi), nil
}

// failsClosed is the wall that holds where another one cannot be built: what a sandbox needs and this machine refuses ends the
// start.
const failsClosed wall.Name = "no start without what it needs"

// Dispensable are the walls that a sandbox may be asked to do without where this machine cannot build them.
var Dispensable = [...]string{"seccomp", "landlock"}

// checkFilter looks whether the filter can be installed, before anything is built; without it only on the user's word.
func checkFilter(r *rights.Rights, missing []string) error {
	if len(r.Filter) == 0 {
		return nil
	}
	if err := rights.CheckSeccomp(); err != nil {
		if !slices.Contains(missing, "seccomp") && wall.Up(failsClosed) {
			return missingWall("seccomp", err)
		}
		r.Filter = nil
	}
	return nil
}

// missingWall is the error of a wall that this machine does not let whisk build.
func missingWall(name string, err error) error {
	return &Error{Message: fmt.Sprintf("the wall %q cannot be built here: %v", name, err), Hint: mend.More("to do without it: --allow-missing=" + name), Exit: ExitWhisk}
}

// fenceError is for a kernel that has Landlock and does not let us use it.
func fenceError(err error) error {
	return &Error{Message: fmt.Sprintf("the wall \"landlock\" cannot be built here: %v", err), Hint: mend.More("to do without it: --security-opt landlock=unconfined"), Exit: ExitWhisk}
}

// rules makes the fence's rules while the host's /dev is in sight; nil where there is no fence. Besides the root they
// allow what the app's own streams may be: programs reopen them as /dev/stdout, and then the kernel looks where the file
// lies and not where its name was found. For the streams of later commands, that is the null device and terminals: which, nobody
// knows yet, so that they are allowed for writing alone, and none of the user's other terminals can be listened at.
func (s *Sandbox) rules(stdio Stdio) (_ *rights.Ruleset, err error) {
	if s.fence.ABI == 0 {
		return nil, nil
	}
	set, err := s.fence.Rules()
	if err != nil {
		return nil, fenceError(err)
	}
	defer func() {
		if err != nil {
			set.Close()
		}
	}()
	if err := set.AllowAll(s.b.root.fd); err != nil {
		return nil, err
	}
	for _, later := range []struct {
		name  string
		flags int
	}{{"/dev/null", unix.O_RDWR}, {"/dev/pts", unix.O_WRONLY}} {
		fd, err := unix.Open(later.name, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", later.name, err)
		}
		err = set.Allow(fd, s.fence.FileAccess(later.flags))
		unix.Close(fd)
		if err != nil {
			return nil, err
		}
	}
	for _, file := range stdio {
		if err := s.allowStream(set, file); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// allowStream allows a file to be opened again as it was opened. A folder is none of an app's streams.
func (s *Sandbox) allowStream(set *rights.Ruleset, file *os.File) error {
	fd := int(file.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at standard stream: %w", err)
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFCHR {
		return nil
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("look at standard stream: %w", err)
	}
	return set.Allow(fd, s.fence.FileAccess(flags))
}
