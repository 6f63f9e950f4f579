package launcher

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// youngest is how old something without an owner must be before it counts as left behind: a command may be in the
// middle of making it.
const youngest = time.Minute

// Sweep removes what killed keepers and commands have left on disk: sandboxes that were to be forgotten, and
// half-made or half-removed folders. It writes down the end of the others. It must be called inside whisk's user
// namespace. A folder whose network is held is left alone, as is one younger than youngest without a record. An
// anonymous volume goes when neither its sandbox is there nor any record names it.
func Sweep(d Dirs) error {
	var faults []error
	entries, err := os.ReadDir(d.Sandboxes())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sweep sandboxes: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			faults = append(faults, sweepHidden(d.Sandboxes(), e))
			continue
		}
		r, err := ReadRecord(d, e.Name())
		if err != nil {
			if info, ierr := e.Info(); errors.Is(err, fs.ErrNotExist) && ierr == nil && time.Since(info.ModTime()) > youngest {
				faults = append(faults, discard(d.Sandboxes(), e.Name()))
			}
			continue
		}
		if Held(d, r.KeeperName()) {
			continue
		}
		faults = append(faults, sweepSandbox(d, r))
	}
	faults = append(faults, sweepVolumes(d))
	return errors.Join(append(faults, SweepNetworks(d))...)
}

// sweepVolumes removes the anonymous volumes of sandboxes that are gone. The list of volumes is older than that of the
// records: what is handed on meanwhile is in a record by then.
func sweepVolumes(d Dirs) error {
	volumes, _ := os.ReadDir(d.Volumes())
	var faults []error
	var lost []string
	for _, e := range volumes {
		if strings.HasPrefix(e.Name(), ".") {
			faults = append(faults, sweepHidden(d.Volumes(), e))
			continue
		}
		if v, err := InspectVolume(d, e.Name()); err == nil && v.Anonymous != "" && time.Since(v.CreatedAt) > youngest {
			if _, err := os.Stat(d.Sandbox(v.Anonymous)); errors.Is(err, fs.ErrNotExist) {
				lost = append(lost, v.Name)
			}
		}
	}
	if len(lost) == 0 {
		return errors.Join(faults...)
	}
	used, err := usedVolumes(d)
	if err != nil {
		return errors.Join(append(faults, err)...)
	}
	for _, name := range lost {
		if !used[name] {
			faults = append(faults, discard(d.Volumes(), name))
		}
	}
	return errors.Join(faults...)
}

// usedVolumes are the anonymous volumes that records name, also those of sandboxes that a killed keeper has left.
func usedVolumes(d Dirs) (map[string]bool, error) {
	entries, err := os.ReadDir(d.Sandboxes())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("sweep volumes: %w", err)
	}
	used := map[string]bool{}
	for _, e := range entries {
		if r, err := ReadRecord(d, e.Name()); err == nil {
			for _, v := range r.Volumes {
				used[v] = true
			}
		}
	}
	return used, nil
}

// sweepSandbox settles the record of a sandbox whose keeper is gone.
func sweepSandbox(d Dirs, r *Record) error {
	hold, err := HoldSandbox(d, r.ID)
	if errors.Is(err, ErrSandboxHeld) || errors.Is(err, fs.ErrNotExist) {
		return nil // the next keeper has it, or somebody is removing it
	}
	if err != nil {
		return err
	}
	defer hold.Close()
	was := r.State
	if !r.settle() {
		return RemoveHeldSandbox(d, r.ID, true)
	}
	if was != Exited {
		return r.Write(d)
	}
	return nil
}

// SweepNetworks removes the folders that killed keepers have left in the runtime directory.
func SweepNetworks(d Dirs) error {
	entries, err := os.ReadDir(d.Networks())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sweep networks: %w", err)
	}
	var faults []error
	for _, e := range entries {
		faults = append(faults, sweepNetwork(d.Network(e.Name())))
	}
	return errors.Join(faults...)
}

// sweepNetwork removes a network's folder under its lock; a keeper that comes meanwhile makes the folder anew. So an empty one,
// of a keeper that was killed while it made or removed it, goes at any age.
func sweepNetwork(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if unix.Rmdir(dir) == nil {
			return nil
		}
		if st, err := os.Stat(dir); err == nil && time.Since(st.ModTime()) > youngest {
			_ = os.Remove(filepath.Join(dir, "control.sock"))
			_ = os.Remove(dir)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep network: %w", err)
	}
	defer f.Close()
	sweepUnlocked(dir, f)
	return nil
}

// sweepUnlocked removes a network's folder if nobody holds lock, and if that is still the folder's.
func sweepUnlocked(dir string, lock *os.File) {
	if TakeLock(lock) != nil || !InPlace(lock) {
		return
	}
	_ = os.Remove(filepath.Join(dir, "control.sock"))
	_ = os.Remove(filepath.Join(dir, "lock"))
	_ = os.Remove(dir) // not empty: a keeper has come
}

// Unswept says whether a killed keeper or command has left something that Sweep would remove or write down. It may
// be called outside the user namespace.
func Unswept(d Dirs) bool {
	for _, dir := range []string{d.Sandboxes(), d.Volumes()} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".gone-") {
				return true
			}
			if dir != d.Sandboxes() || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			if r, err := ReadRecord(d, e.Name()); err == nil && (r.Remove || r.State != Exited) && !Held(d, r.KeeperName()) {
				return true
			}
		}
	}
	return false
}

// sweepHidden removes a folder that a killed command was making or removing, when it is old enough that nobody
// still is.
func sweepHidden(dir string, e fs.DirEntry) error {
	if info, err := e.Info(); err != nil || !strings.HasPrefix(e.Name(), ".gone-") && time.Since(info.ModTime()) < youngest {
		return nil
	}
	return removeTree(filepath.Join(dir, e.Name()))
}
