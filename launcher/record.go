package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// writeJSON writes a document whole: a temporary file beside it, fsync when it must survive a crash of the
// machine, rename.
func writeJSON(file string, doc any, durable bool) error {
	b, err := json.MarshalIndent(doc, "", "\t")
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(file), err)
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".tmp-")
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(file), err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(b, '\n'))
	if err == nil && durable {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(file), err)
	}
	return nil
}

// Write stores the record in the sandbox's folder. Sandboxes that are forgotten when they end are not worth an
// fsync: after a crash of the machine there is nothing of them to find.
func (r *Record) Write(d Dirs) error {
	return writeJSON(filepath.Join(d.Sandbox(r.ID), "record.json"), r, !r.Remove)
}

// Forget removes the record, so that the sandbox is out of sight before its folder is gone.
func (r *Record) Forget(d Dirs) error {
	if err := os.Remove(filepath.Join(d.Sandbox(r.ID), "record.json")); err != nil {
		return fmt.Errorf("forget sandbox %s: %w", r.ID, err)
	}
	return nil
}

// ReadRecord reads the record of one sandbox as it was last written.
func ReadRecord(d Dirs, id string) (*Record, error) {
	b, err := os.ReadFile(filepath.Join(d.Sandbox(id), "record.json"))
	if err != nil {
		return nil, err
	}
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("read record of sandbox %s: %w", id, err)
	}
	if r.Version != SpecVersion {
		return nil, &Error{Message: fmt.Sprintf("sandbox %s was made by another version of whisk (record version %d)", id, r.Version), Hint: "whisk rm " + id, Exit: ExitWhisk}
	}
	return &r, nil
}

// Records lists all sandboxes, oldest first. What a record says of a running sandbox is true only while its
// keeper lives: the others are reported as ended by SIGKILL, or left out where they were to be forgotten.
func Records(d Dirs) ([]Record, error) {
	entries, err := os.ReadDir(d.Sandboxes())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	held := map[string]bool{}
	var out []Record
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		r, err := ReadRecord(d, e.Name())
		if err != nil {
			continue // being made or removed; sweep deals with what stays
		}
		if _, asked := held[r.KeeperName()]; !asked {
			held[r.KeeperName()] = Held(d, r.KeeperName())
		}
		if !held[r.KeeperName()] && !r.settle() {
			continue
		}
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Record) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return out, nil
}

// Busy reports whether the keeper of a network has a sandbox to look after. Records that cannot be listed tell of one.
func Busy(d Dirs, network string) bool {
	records, err := Records(d)
	return err != nil || slices.ContainsFunc(records, func(r Record) bool {
		return r.KeeperName() == network && r.State != Exited
	})
}

// settle corrects a record whose keeper is gone. It returns false for a sandbox that is to be forgotten, as are
// those that never came to run, unless an earlier one has handed its anonymous volumes on to them.
func (r *Record) settle() bool {
	if r.State == Created && len(r.Volumes) == 0 {
		return false
	}
	if r.State != Exited {
		r.State, r.ExitCode, r.Error = Exited, 128+int(unix.SIGKILL), "its keeper was killed"
		r.FinishedAt = time.Now().UTC()
	}
	r.PID, r.IPv4, r.IPv6, r.Ports, r.Ready, r.ControlGroup = 0, "", "", nil, false, ""
	return !r.Remove
}

// KeeperName is the name of the network whose keeper looks after the sandbox. A sandbox without a network has a
// keeper of its own.
func (s *Spec) KeeperName() string {
	if s.Network == "none" {
		if s.Project != "" {
			return s.Project
		}
		return s.ID
	}
	return s.Network
}

// Held says whether a keeper holds a network: its lock is taken. Asking does not touch the lock (F_OFD_GETLK,
// fcntl(2)).
func Held(d Dirs, network string) bool {
	f, err := os.Open(filepath.Join(d.Network(network), "lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	lk := unix.Flock_t{Type: unix.F_RDLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lk) == nil && lk.Type != unix.F_UNLCK
}

// InPlace reports whether an open file is the one that its name stands for, now. A lock on one that has been removed
// keeps nobody off.
func InPlace(f *os.File) bool {
	mine, err1 := f.Stat()
	there, err2 := os.Stat(f.Name())
	return err1 == nil && err2 == nil && os.SameFile(mine, there)
}

// TakeLock locks a file for as long as it stays open in this process (open file description lock, fcntl(2)).
// unix.EAGAIN says that another holds it.
func TakeLock(f *os.File) error {
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
}

// Find selects one sandbox: by id or a unique prefix of it, by name, by app ("web", first in project, then
// anywhere) or by "project/app".
func Find(d Dirs, selector, project string) (*Record, error) {
	records, err := Records(d)
	if err != nil {
		return nil, err
	}
	for _, matches := range []func(r *Record) bool{
		func(r *Record) bool { return r.ID == selector },
		func(r *Record) bool { return project != "" && r.Project == project && r.App.Name == selector },
		func(r *Record) bool { return r.Name == selector },
		func(r *Record) bool { return r.Project != "" && r.Project+"/"+r.App.Name == selector },
		func(r *Record) bool { return r.Project != "" && r.App.Name == selector },
		func(r *Record) bool { return selector != "" && strings.HasPrefix(r.ID, selector) },
	} {
		var found []*Record
		for i := range records {
			if matches(&records[i]) {
				found = append(found, &records[i])
			}
		}
		if len(found) == 1 {
			return found[0], nil
		}
		if len(found) > 1 {
			var names []string
			for _, r := range found {
				names = append(names, r.Name+" ("+r.ID+")")
			}
			return nil, &Error{Message: fmt.Sprintf("%q could be any of %s", selector, strings.Join(names, ", ")), Hint: "give more of the id", Exit: ExitWhisk}
		}
	}
	return nil, &Error{Message: fmt.Sprintf("no sandbox %q", selector), Hint: "whisk ps -a", Kind: KindNotFound, Exit: ExitWhisk}
}

// ErrSandboxHeld says that somebody looks after a sandbox or is removing it.
var ErrSandboxHeld = errors.New("the sandbox is being started, or removed")

// HoldSandbox locks the folder of a sandbox until the file is closed: for the keeper that looks after it, or for who
// removes it. ErrSandboxHeld when somebody else does; fs.ErrNotExist when there is no such sandbox.
func HoldSandbox(d Dirs, id string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(d.Sandbox(id), "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock sandbox %s: %w", id, err)
	}
	err = TakeLock(f)
	switch {
	case errors.Is(err, unix.EAGAIN):
		err = ErrSandboxHeld
	case err != nil:
		err = fmt.Errorf("lock sandbox %s: %w", id, err)
	case !InPlace(f):
		err = fmt.Errorf("lock sandbox %s: %w", id, fs.ErrNotExist)
	default:
		return f, nil
	}
	f.Close()
	return nil, err
}

// RemoveSandbox forgets a sandbox that nobody holds: record, log, writable layer and, when volumes is set, its anonymous
// volumes, which stay otherwise and belong to nobody. One that is not there is no error. Files in it belong to sub-ids: it must be called inside whisk's user
// namespace.
func RemoveSandbox(d Dirs, id string, volumes bool) error {
	f, err := HoldSandbox(d, id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return RemoveHeldSandbox(d, id, volumes)
}

// RemoveHeldSandbox is RemoveSandbox for who holds it.
func RemoveHeldSandbox(d Dirs, id string, volumes bool) error {
	if r, err := ReadRecord(d, id); err == nil {
		for _, v := range r.Volumes {
			if volumes {
				err = discard(d.Volumes(), v)
			} else {
				err = OwnVolume(d, v, "")
			}
			if err != nil {
				return err
			}
		}
	}
	return discard(d.Sandboxes(), id)
}
