package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	graphdriver "go.podman.io/storage/drivers"
	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/wall"
	"github.com/whisk-sandbox/whisk/mend"
)

// Error is a fault that a person can act on.
type Error struct {
	Message string // one line
	Remedy  string // what to type or check; may be empty
	Err     error  // the cause; may be nil
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Hint is the remedy.
func (e *Error) Hint() string { return e.Remedy }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// NotFoundError says that the store has no such image.
type NotFoundError struct {
	Name string // as asked for
}

// Error implements error.
func (e *NotFoundError) Error() string { return fmt.Sprintf("image %q is not here", e.Name) }

// AmbiguousError says that several images' ids begin so.
type AmbiguousError struct {
	Prefix string
	IDs    []string // the first 12 digits of each, at least two
}

// Error implements error.
func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("image id %q is ambiguous: it begins %s", e.Prefix, strings.Join(e.IDs, ", "))
}

// InUseError says that sandboxes were made from the image.
type InUseError struct {
	Name string   // as asked for
	By   []string // the sandboxes' names
}

// Error implements error.
func (e *InUseError) Error() string {
	return fmt.Sprintf("image %q is used by sandbox %s", e.Name, strings.Join(e.By, ", "))
}

// Hint is how to be rid of the sandboxes.
func (e *InUseError) Hint() string { return "whisk rm " + strings.Join(e.By, " ") }

// storeError words an error of the store or its file system; one that is worded already passes unchanged.
func storeError(path, doing string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	const elsewhere = "set XDG_DATA_HOME to a folder that you may write to"
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	reason, remedy := "", ""
	switch {
	case errors.Is(err, unix.EROFS):
		reason, remedy = "its file system is read-only", elsewhere
	case errors.Is(err, unix.ENOSPC):
		reason, remedy = "no space is left on its file system", "free some: whisk images, whisk rmi; or set XDG_DATA_HOME to another disk"
	case errors.Is(err, unix.EDQUOT):
		reason, remedy = "your disk quota is used up", "free some: whisk images, whisk rmi; or set XDG_DATA_HOME to another disk"
	case errors.Is(err, fs.ErrPermission):
		reason, remedy = "you may not write there: "+rootCause(err), elsewhere
	case errors.Is(err, graphdriver.ErrIncompatibleFS), errors.Is(err, graphdriver.ErrNotSupported):
		reason, remedy = "overlayfs cannot be laid over its file system: "+rootCause(err), mend.More("set XDG_DATA_HOME to a folder on ext4, xfs, btrfs or tmpfs")
	case errors.As(err, &syntax), errors.As(err, &mismatch), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EIO), errors.Is(err, unix.EUCLEAN), errors.Is(err, errDamaged),
		strings.Contains(err.Error(), ", error found in #"): // the mark of json-iterator's errors, which have no type
		reason, remedy = "it is damaged: "+rootCause(err), "move it away; images can be pulled again"
	default:
		return fmt.Errorf("%s image store %q: %w", doing, path, err)
	}
	return &Error{Message: fmt.Sprintf("image store %q: %s", path, reason), Remedy: remedy, Err: err}
}

// errDamaged marks a store whose records name what is not there.
var errDamaged = errors.New("its records and its files differ")

// rootCause is the innermost failed operation, on one line: what a person can act on.
func rootCause(err error) string {
	text := err.Error()
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		text = pe.Error()
	}
	return cut(strings.Join(strings.Fields(text), " "), maxSaid)
}

// How much of a stranger's text goes into a message, in bytes: of a whole error, and of one name in it.
const (
	maxSaid  = 500
	maxNamed = 100
)

// brief cuts a name that may be of any length.
func brief(name string) string { return cut(name, maxNamed) }

func cut(text string, n int) string {
	if len(text) <= n || !wall.Up("answer limits") {
		return text
	}
	return strings.ToValidUTF8(text[:n], "") + "…"
}

// catch turns a panic of the library into an error: it panics where it cannot open one of its lock files, as on a file
// system that has become read-only or full. Deferred by whatever calls the library,
// for what check did not see; other panics pass.
func (s *Store) catch(err *error) {
	switch r := recover().(type) {
	case nil:
	case runtime.Error:
		panic(r)
	case error:
		*err = storeError(s.opts.GraphRoot, "locking", r)
	default:
		panic(r)
	}
}

// check tells whether the library's lock files can be opened, before the library does: it panics where they cannot, and
// leaves a mutex of this process locked.
func (s *Store) check() error {
	for _, name := range []string{"storage.lock", driverName + "-layers/layers.lock", driverName + "-images/images.lock"} {
		f, err := os.OpenFile(filepath.Join(s.opts.GraphRoot, name), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has not been needed yet
		}
		if err != nil {
			return storeError(s.opts.GraphRoot, "locking", err)
		}
		f.Close()
	}
	return nil
}
