package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sirupsen/logrus"
	"go.podman.io/storage"
	_ "go.podman.io/storage/drivers/overlay" // the one driver that whisk uses
)

// Options says where the store is. All are needed but IgnoreChownErrors.
type Options struct {
	GraphRoot string // layers and images, absolute; on a file system that overlayfs can be laid over
	RunRoot   string // what need not outlive a reboot, absolute
	// IgnoreChownErrors gives files whose owner is not mapped to whoever unpacks them, for the one-id map.
	IgnoreChownErrors bool
}

// Store is the user's images. Its methods may be called from any goroutine, and any number of processes may have the
// same store open.
type Store struct {
	opts   Options
	store  storage.Store
	limits limits
	pace   pace     // of a registry's answers; zero is defaultPace
	dial   dialFunc // nil but in tests: the network's
}

// Open opens the store, and makes it where there is none. It takes under a millisecond. Neither storage.conf nor the
// library's environment variables are read; it sets one of them for the process. A file system that is read-only or full, one that overlayfs cannot be laid
// over, and a store that is damaged are an *Error.
func Open(opts Options) (_ *Store, err error) {
	defer (&Store{opts: opts}).catch(&err)
	if !filepath.IsAbs(opts.GraphRoot) || !filepath.IsAbs(opts.RunRoot) {
		return nil, errors.New("opening the image store: its folders must be absolute paths")
	}
	if err := (&Store{opts: opts}).check(); err != nil {
		return nil, err
	}
	// The library logs what it repairs; whisk's errors say what a person must know.
	logrus.SetOutput(io.Discard)

	// Otherwise its driver tries out mounts with mapped ids, which whisk does not use, by a forked process that outlives
	// us and our locks if we are killed before it has asked for a parent-death signal (v1.64.2, pkg/idmap).
	if err := os.Setenv(disableIDMap, "yes"); err != nil {
		return nil, fmt.Errorf("opening the image store: %w", err)
	}
	// GetStore reads storage.conf even when nothing is left for it to say, and fails if it is broken.
	const variable = "CONTAINERS_STORAGE_CONF"
	old, had := os.LookupEnv(variable)
	if err := os.Setenv(variable, os.DevNull); err != nil {
		return nil, fmt.Errorf("opening the image store: %w", err)
	}
	s, err := storage.GetStore(storage.StoreOptions{
		GraphRoot:       opts.GraphRoot,
		RunRoot:         opts.RunRoot,
		GraphDriverName: driverName,
		// No mount of the store's own folder: whisk mounts layers in namespaces of its own.
		GraphDriverOptions: []string{driverName + ".skip_mount_home=true"},
	})
	if had {
		err = errors.Join(err, os.Setenv(variable, old))
	} else {
		err = errors.Join(err, os.Unsetenv(variable))
	}
	if err != nil {
		return nil, storeError(opts.GraphRoot, "opening", err)
	}
	return &Store{opts: opts, store: s, limits: defaultLimits()}, nil
}

const driverName = "overlay"

// disableIDMap is a variable that the library's driver reads.
const disableIDMap = "_CONTAINERS_OVERLAY_DISABLE_IDMAP"

// Close ends the use of the store. Nothing is lost without it: the store holds no lock and no descriptor between calls.
// The library keeps what it has read for the process's next Open.
func (s *Store) Close() error { return nil }

// overlayDir is the base that Image.Layers are relative to.
func (s *Store) overlayDir() string { return filepath.Join(s.opts.GraphRoot, driverName) }

// stagingDir holds layers that are being unpacked, and the locks of those who do it. It must be on the store's file
// system, since a finished layer is renamed into place.
func (s *Store) stagingDir() string { return filepath.Join(s.opts.GraphRoot, "staging") }
