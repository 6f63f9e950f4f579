package launcher

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/userns"
	"github.com/whisk-sandbox/whisk/userns/birth"
)

// closerName is the stage of TestReadOnlyWaitsForWriters.
const closerName = "launcher-test-closer"

// closeRoot makes a mount read-only of which a file is open for writing, as in a child of another sandbox that is just being born.
func closeRoot() error {
	if err := userns.Enter(); err != nil {
		return err
	}
	mount, err := newTmpfs(0, 1<<20, 0o755)
	if err != nil {
		return err
	}
	file, err := unix.Openat(mount, "file", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	if err := unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != unix.EBUSY {
		return fmt.Errorf("the kernel says %v of a mount that is written to, want EBUSY", err)
	}
	time.AfterFunc(20*time.Millisecond, func() { unix.Close(file) })
	if err := makeReadOnly(mount); err != nil {
		return err
	}
	if _, err := unix.Openat(mount, "other", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644); err != unix.EROFS {
		return fmt.Errorf("a file can be made: %v, want EROFS", err)
	}
	return nil
}

func TestReadOnlyWaitsForWriters(t *testing.T) {
	m, err := userns.Find(userns.Current())
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Start(context.Background(), birth.Stage{Name: closerName, Env: os.Environ(), Stderr: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	if status, err := p.Wait(); err != nil || status != 0 {
		t.Errorf("it ended with %v, %v", status, err)
	}
}
