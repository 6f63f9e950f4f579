package launcher

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Layout numbers how things lie below Dirs.Data. It grows when a whisk of before could not make sense of what one of
// now writes; what can be added without that needs no new number.
//
//	0  unnumbered: storage, storage-run, sandboxes/ID/{spec.json,log,…}, volumes/NAME/{data,volume.json}, networks/NAME
//	1  the same, with the file "layout"
const Layout = 1

// migration leads from one layout to the next. One that was cut short is done again from its start, so it must stand
// what it has done already.
type migration struct {
	apply func(d Dirs) error
	// live says that keepers of the whisk of before may go on meanwhile: nothing that they have open or still write moves.
	live bool
}

func migrations() []migration {
	return []migration{
		{apply: func(Dirs) error { return nil }, live: true}, // the number itself
	}
}

// Fits tells whether this whisk can work on the data as it lies there, be it after an Upgrade, or where it would lie. It
// changes nothing.
func (d Dirs) Fits() error {
	for _, dir := range []string{d.Data, d.Run} {
		st, err := os.Stat(dir)
		for above := dir; errors.Is(err, fs.ErrNotExist) && above != "/"; st, err = os.Stat(above) {
			above = filepath.Dir(above)
		}
		switch {
		case err != nil:
			return fmt.Errorf("look at whisk's folder: %w", err)
		case !st.IsDir():
			return fmt.Errorf("make whisk's folder: %s: %w", dir, unix.ENOTDIR)
		}
		if st, err := os.Stat(dir); err == nil && !ownedBy(st, os.Geteuid()) && !ownedBy(st, 0) {
			return &Error{Message: fmt.Sprintf("whisk's folder %q is somebody else's", dir), Hint: "set XDG_DATA_HOME and XDG_RUNTIME_DIR to folders of your own", Exit: ExitWhisk}
		}
	}
	_, err := d.layout()
	return err
}

func (d Dirs) layoutFile() string { return filepath.Join(d.Data, "layout") }

// Upgrade brings what an earlier whisk has left to this one's layout. Data of a later whisk is refused, before anything
// could be lost, and so is, as KindOlderRuns, data that sandboxes of an earlier one still run on, where a migration would
// move it away from under them. It does nothing where there is no data. Several commands may call it at once.
func (d Dirs) Upgrade() error { return d.upgrade(migrations()) }

func (d Dirs) upgrade(migrations []migration) error {
	if from, err := d.layout(); err != nil || from >= len(migrations) {
		return err
	}
	if _, err := os.Lstat(d.Data); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	f, err := os.Open(d.Data)
	if err != nil {
		return fmt.Errorf("lock the store: %w", err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock the store: %w", err)
	}
	from, err := d.layout() // another command may have been first
	if err != nil {
		return err
	}
	for n, m := range migrations {
		if n < from {
			continue
		}
		if !m.live {
			if err := d.olderRuns(n + 1); err != nil {
				return err
			}
		}
		if err := m.apply(d); err != nil {
			return fmt.Errorf("bring %s from layout %d to %d: %w", d.Data, n, n+1, err)
		}
		if err := writeJSON(d.layoutFile(), n+1, true); err != nil {
			return err
		}
	}
	return nil
}

// olderRuns is an error while keepers of the whisk of before hold networks: it names what they run.
func (d Dirs) olderRuns(to int) error {
	entries, err := os.ReadDir(d.Networks())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for keepers: %w", err)
	}
	held := false
	for _, e := range entries {
		held = held || Held(d, e.Name())
	}
	if !held {
		return nil
	}
	records, err := Records(d)
	if err != nil {
		return err
	}
	var names []string
	for _, r := range records {
		if r.State == Running {
			names = append(names, r.Name)
		}
	}
	if len(names) == 0 { // it starts or ends one at this moment
		return &Error{Message: fmt.Sprintf("a keeper of an earlier whisk still works on %s, which is to get layout %d", d.Data, to), Hint: "try again in a moment", Kind: KindOlderRuns, Exit: ExitWhisk}
	}
	return &Error{
		Message: fmt.Sprintf("%s is to get layout %d, and sandboxes of an earlier whisk still run on it: %s", d.Data, to, strings.Join(names, ", ")),
		Hint:    "nothing is lost by: whisk stop " + strings.Join(names, " "), Kind: KindOlderRuns, Exit: ExitWhisk,
	}
}

// Settle calls take, by which a keeper comes to hold a network, while no Upgrade can be under way, and refuses data that
// has got another layout since the keeper was started.
func (d Dirs) Settle(take func() error) error {
	f, err := os.Open(d.Data)
	if err != nil {
		return fmt.Errorf("lock the store: %w", err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		return fmt.Errorf("lock the store: %w", err)
	}
	n, err := d.layout()
	if err != nil {
		return err
	}
	if n != Layout {
		return &Error{Message: fmt.Sprintf("%s has layout %d, and this keeper works on %d", d.Data, n, Layout), Hint: "run the command again", Exit: ExitWhisk}
	}
	return take()
}

// layout reads the number; data without one has layout 0.
func (d Dirs) layout() (int, error) {
	b, err := os.ReadFile(d.layoutFile())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the store's layout: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	switch {
	case err != nil || n < 1:
		return 0, &Error{Message: fmt.Sprintf("%s does not hold a number: this is not whisk's folder, or it is damaged", d.layoutFile()), Hint: fmt.Sprintf("if it is: echo %d > %s", Layout, d.layoutFile()), Exit: ExitWhisk}
	case n > Layout:
		return 0, &Error{Message: fmt.Sprintf("%s was written by a later whisk: it has layout %d, and this one knows up to %d", d.Data, n, Layout), Hint: "use that whisk, or another store: the key \"store\" in config.toml", Exit: ExitWhisk}
	}
	return n, nil
}
