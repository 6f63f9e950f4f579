package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// staging is a folder in which one process unpacks one layer. It belongs to whoever holds the lock beside it.
type staging struct {
	dir  string // holds "diff", the layer's root, and is gone after close
	lock *os.File
}

const lockSuffix = ".lock"

// stage takes the lock of a layer and an empty folder for it. It waits while another process has it.
func (s *Store) stage(ctx context.Context, layerID string) (*staging, error) {
	if err := os.MkdirAll(s.stagingDir(), 0o700); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.stagingDir(), layerID)
	lock, err := lockFile(ctx, dir+lockSuffix)
	if err != nil {
		return nil, err
	}
	g := &staging{dir: dir, lock: lock}
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

func (g *staging) root() string { return filepath.Join(g.dir, "diff") }

// close removes what was not committed, and the lock last.
func (g *staging) close() error {
	err := os.RemoveAll(g.dir)
	return errors.Join(err, os.Remove(g.lock.Name()), g.lock.Close())
}

// sweep removes what killed processes left. Folders in use are locked, and stay.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(s.stagingDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var all error
	for _, e := range entries {
		id := strings.TrimSuffix(e.Name(), lockSuffix)
		dir := filepath.Join(s.stagingDir(), id)
		lock, err := tryLockFile(dir + lockSuffix)
		if lock == nil {
			all = errors.Join(all, err)
			continue
		}
		all = errors.Join(all, (&staging{dir: dir, lock: lock}).close())
	}
	return errors.Join(all, s.sweepChecks())
}

// abandoned is an age at which no process can still be in the middle of trying out the kernel, which takes a millisecond.
const abandoned = time.Hour

// sweepChecks removes folders in which killed processes let the library's driver try the kernel out, and records that
// they had half written.
func (s *Store) sweepChecks() error {
	var all error
	for _, kind := range []string{
		driverName + "/opaque-bug-check", driverName + "/metacopy-check", driverName + "/volatile-check", driverName + "/compat",
		driverName + "-layers/.tmp-*.json", driverName + "-images/.tmp-*.json",
	} {
		dirs, err := filepath.Glob(filepath.Join(s.opts.GraphRoot, kind+"[0-9]*"))
		all = errors.Join(all, err)
		for _, dir := range dirs {
			if st, err := os.Lstat(dir); err == nil && time.Since(st.ModTime()) > abandoned {
				all = errors.Join(all, os.RemoveAll(dir))
			}
		}
	}
	return all
}
