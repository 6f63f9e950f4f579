package launcher

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/whisk-sandbox/whisk/internal/wall"
	"github.com/whisk-sandbox/whisk/launcher/id"
)

// Dirs are the folders that whisk writes to. Everything whisk keeps is below one of them.
type Dirs struct {
	Data string // kept: $XDG_DATA_HOME/whisk: storage, volumes, sandboxes
	Run  string // of this login: $XDG_RUNTIME_DIR/whisk: networks
}

// FindDirs reads the XDG Base Directory variables through getenv and applies their defaults; store, if not "", is the
// data folder itself, and has networks of its own, since what runs in them is recorded in it. Where no runtime
// directory is set, /run/user/UID serves if it is there, else whisk-UID below the directory for temporary files,
// which must be this user's own and closed to others.
func FindDirs(getenv func(string) string, uid int, store string) (Dirs, error) {
	data, name := filepath.Join(getenv("XDG_DATA_HOME"), "whisk"), "whisk"
	switch {
	case store != "":
		sum := sha256.Sum256([]byte(store))
		data, name = store, "whisk-"+hex.EncodeToString(sum[:4])
	case !filepath.IsAbs(data):
		home := getenv("HOME")
		if !filepath.IsAbs(home) {
			return Dirs{}, &Error{Message: "cannot tell where to keep images: neither XDG_DATA_HOME nor HOME is an absolute path", Hint: "export HOME=/home/you", Exit: ExitWhisk}
		}
		data = filepath.Join(home, ".local/share/whisk")
	}
	run := getenv("XDG_RUNTIME_DIR")
	if !filepath.IsAbs(run) {
		run = "/run/user/" + strconv.Itoa(uid)
		if st, err := os.Stat(run); err != nil || !ownedBy(st, uid) {
			run = filepath.Join(os.TempDir(), "whisk-"+strconv.Itoa(uid))
			if err := privateDir(run, uid); err != nil {
				return Dirs{}, err
			}
		}
	}
	return Dirs{Data: data, Run: filepath.Join(run, name)}, nil
}

// OtherDirs are the folders that whisk keeps when it is not told of a store of its user's, and where it keeps its sockets
// with and without XDG_RUNTIME_DIR: those of the user's other sandboxes.
func OtherDirs(getenv func(string) string, uid int) []string {
	data := filepath.Join(getenv("XDG_DATA_HOME"), "whisk")
	var dirs []string
	if filepath.IsAbs(data) {
		dirs = append(dirs, data)
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		dirs = append(dirs, filepath.Join(home, ".local/share/whisk"))
	}
	number := strconv.Itoa(uid)
	for _, run := range []string{getenv("XDG_RUNTIME_DIR"), "/run/user/" + number} {
		if filepath.IsAbs(run) {
			dirs = append(dirs, filepath.Join(run, "whisk"))
		}
	}
	return append(dirs, filepath.Join(os.TempDir(), "whisk-"+number))
}

// besides are d and the runtime folders beside its own: each store has one.
func (d Dirs) besides() []string {
	dirs := []string{d.Data, d.Run}
	parent := filepath.Dir(d.Run)
	entries, _ := os.ReadDir(parent) // one that cannot be read shows nothing in a sandbox either
	for _, e := range entries {
		if name := filepath.Join(parent, e.Name()); name != d.Run && (e.Name() == "whisk" || strings.HasPrefix(e.Name(), "whisk-")) {
			dirs = append(dirs, name)
		}
	}
	return dirs
}

// privateDir makes a folder in a place that others may write to, and refuses one that somebody else made.
func privateDir(dir string, uid int) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make runtime directory: %w", err)
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at runtime directory: %w", err)
	}
	if !st.IsDir() || !ownedBy(st, uid) || st.Mode().Perm()&0o077 != 0 {
		return &Error{Message: fmt.Sprintf("runtime directory %q is not yours alone", dir), Hint: "export XDG_RUNTIME_DIR=/a/folder/of/yours with mode 0700", Exit: ExitWhisk}
	}
	return nil
}

func ownedBy(st fs.FileInfo, uid int) bool {
	s, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(s.Uid) == uid
}

// Storage is the graph root of the image store.
func (d Dirs) Storage() string { return filepath.Join(d.Data, "storage") }

// StorageRun is the run root of the image store.
func (d Dirs) StorageRun() string { return filepath.Join(d.Data, "storage-run") }

// Sandboxes holds one folder a sandbox.
func (d Dirs) Sandboxes() string { return filepath.Join(d.Data, "sandboxes") }

// Sandbox is the folder of one sandbox: its record, log and writable layer.
func (d Dirs) Sandbox(id string) string { return filepath.Join(d.Sandboxes(), id) }

// Log is the file of a sandbox's output; see Log.
func (d Dirs) Log(id string) string { return filepath.Join(d.Sandbox(id), "log") }

// Volumes holds one folder a volume.
func (d Dirs) Volumes() string { return filepath.Join(d.Data, "volumes") }

// Networks holds one folder a network that has a keeper.
func (d Dirs) Networks() string { return filepath.Join(d.Run, "networks") }

// Network is the folder of one network: lock and control.sock.
func (d Dirs) Network(name string) string { return filepath.Join(d.Networks(), name) }

// Make creates the folders that every command needs, closed to others. One that is there must be this user's, or root's:
// whoever owns it could put another in its place. It has been through Upgrade.
func (d Dirs) Make() error {
	for _, dir := range []string{d.Data, d.Run, d.Sandboxes(), d.Networks()} {
		if err := os.MkdirAll(dir, OwnerOnly(0o755)); err != nil {
			return fmt.Errorf("make whisk's folder: %w", err)
		}
	}
	for _, dir := range []string{d.Data, d.Run} {
		if err := closeFolder(dir, os.Geteuid()); err != nil {
			return err
		}
	}
	if n, err := d.layout(); err != nil || n == Layout {
		return err
	}
	return writeJSON(d.layoutFile(), Layout, true)
}

// closeFolder closes to others a folder that may have been made by another program or another user.
func closeFolder(dir string, uid int) error {
	if !wall.Up("private folders") {
		return nil
	}
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at whisk's folder: %w", err)
	}
	switch {
	case ownedBy(st, uid):
		if st.Mode().Perm()&0o077 == 0 {
			return nil
		}
		if err := os.Chmod(dir, st.Mode().Perm()&^0o077); err != nil {
			return fmt.Errorf("close whisk's folder to others: %w", err)
		}
	case !ownedBy(st, 0):
		return &Error{Message: fmt.Sprintf("whisk's folder %q is somebody else's", dir), Hint: "set XDG_DATA_HOME and XDG_RUNTIME_DIR to folders of your own", Exit: ExitWhisk}
	}
	return nil
}

// OwnerOnly takes from a mode what it grants to others than the owner: nothing that whisk keeps is for their eyes.
func OwnerOnly(mode fs.FileMode) fs.FileMode {
	if !wall.Up("private folders") {
		return mode
	}
	return mode &^ 0o077
}

// NewID is the id of a sandbox to be.
func NewID() string { return id.New() }
