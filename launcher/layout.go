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

// migrations lead from each layout to the next. One that was cut short is done again from its start, so it must stand
// what it has done already.
func migrations() [Layout]func(d Dirs) error {
	return [...]func(Dirs) error{
		func(Dirs) error { return nil },
	}
}

func (d Dirs) layoutFile() string { return filepath.Join(d.Data, "layout") }

// Upgrade brings what an earlier whisk has left to this one's layout. Data of a later whisk is refused, before anything
// could be lost. It does nothing where there is no data. Several commands may call it at once.
func (d Dirs) Upgrade() error {
	if from, err := d.layout(); err != nil || from == Layout {
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
	for n, migrate := range migrations() {
		if n < from {
			continue
		}
		if err := migrate(d); err != nil {
			return fmt.Errorf("bring %s from layout %d to %d: %w", d.Data, n, n+1, err)
		}
		if err := writeJSON(d.layoutFile(), n+1, true); err != nil {
			return err
		}
	}
	return nil
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
