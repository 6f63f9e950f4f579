package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is how often a lock that another holds is tried again: flock(2) cannot be waited for with a deadline, and
// who waits does so for a download.
const lockPoll = 25 * time.Millisecond

// lockFile takes an exclusive lock on a file, which is made if need be, and waits for whoever holds it. The kernel
// frees the lock when the descriptor is closed, and so when the process dies.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	for {
		f, err := tryLockFile(path)
		if f != nil || err != nil {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(lockPoll):
		}
	}
}

// tryLockFile is nil without an error when another holds the lock.
func tryLockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		// The holder before us may have removed the file on its way out: then this lock keeps nobody off.
		var ours, now unix.Stat_t
		if unix.Fstat(int(f.Fd()), &ours) == nil && unix.Stat(path, &now) == nil && ours.Ino == now.Ino && ours.Dev == now.Dev {
			return f, nil
		}
		err = unix.EWOULDBLOCK
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return nil, nil
	}
	return nil, fmt.Errorf("locking %s: %w", path, err)
}
