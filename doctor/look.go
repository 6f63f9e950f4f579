package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/rights"
	"github.com/whisk-sandbox/whisk/userns"
)

// Build is what a whisk was made of: a version, and its commit's date as RFC 3339 has it, or "".
type Build struct{ Version, Date string }

// Look looks at this machine and tries on it what only trying tells; it changes nothing, and leaves nothing behind. What it
// cannot find out is part of the Machine, never an error, except that ctx has ended.
func Look(ctx context.Context, b Build, dirs launcher.Dirs) (*Machine, error) {
	here := userns.Here()
	m := &Machine{
		Files: os.DirFS("/"), Whisk: b.Version, User: userns.Current(), Now: time.Now(),
		NewUIDMap: here.NewUIDMap, NewGIDMap: here.NewGIDMap, NoNewPrivs: here.NoNewPrivs,
		RuntimeDir: os.Getenv("XDG_RUNTIME_DIR"),
		Data:       dirs.Data, Leftovers: launcher.Unswept(dirs),
		Refused: userns.Try(),
	}
	if here.Asks() != "" {
		uids, gids, err := here.Directory(m.User)
		m.Directory = &Answer{UIDs: uids, GIDs: gids, NoProgram: errors.Is(err, userns.ErrNoGetsubids), Error: word(err)}
	}
	if made, err := time.Parse(time.RFC3339, b.Date); err == nil {
		m.Built = made
	}
	if groups, err := unix.Getgroups(); err == nil {
		for _, g := range groups {
			m.Groups = append(m.Groups, uint32(g))
		}
	}
	m.ReadOnlyEtc = statfs("/etc").ReadOnly
	m.Pod = os.Getenv("KUBERNETES_SERVICE_HOST") != ""
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		m.Kernel, m.Arch = text(uts.Release[:]), text(uts.Machine[:])
	}
	if exe, err := os.Readlink("/proc/self/exe"); err == nil {
		m.Exe = exe
	}
	if err := rights.CheckSeccomp(); err != nil {
		m.Seccomp = err.Error()
	}
	abi, err := rights.LandlockABI()
	if m.Landlock = abi; err != nil {
		m.Fence = err.Error()
	}
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil {
		m.Descriptors = files.Max
	}
	m.Ping = word(tryPing())
	if err := dirs.Fits(); err != nil {
		m.NoData = refusalOf(err)
	}
	m.Store = statfs(dirs.Data)
	if m.Refused == nil && m.NoData == nil && !m.Store.Forbidden && !m.Store.ReadOnly {
		if err := m.lookInside(ctx, dirs); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// tryPing makes the socket that an app's echo requests leave the machine through.
func tryPing() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func text(c []byte) string {
	s, _, _ := bytes.Cut(c, []byte{0})
	return string(s)
}

// statfs looks at a folder, or at the nearest one above it that is there.
func statfs(dir string) FileSystem {
	f := FileSystem{At: dir}
	var s unix.Statfs_t
	for {
		err := unix.Statfs(f.At, &s)
		if err == nil || f.At == "/" {
			break
		}
		f.At = filepath.Dir(f.At)
	}
	f.Magic, f.Free, f.Inodes, f.NoInodes = int64(s.Type), s.Bavail*uint64(s.Bsize), s.Ffree, s.Files == 0
	f.ReadOnly = s.Flags&unix.ST_RDONLY != 0
	f.Forbidden = !f.ReadOnly && unix.Access(f.At, unix.W_OK) != nil
	return f
}

// lookInside starts the stage and takes what it says.
func (m *Machine) lookInside(ctx context.Context, dirs launcher.Dirs) error {
	found, err := runStage(ctx, dirs, m.Store.At)
	if ctx.Err() != nil {
		return fmt.Errorf("examining the machine: %w", ctx.Err())
	}
	if err == nil {
		m.Inside = found
		return nil
	}
	m.Stage = refusalOf(err)
	return nil
}

// refusalOf keeps an error's words.
func refusalOf(err error) *Refusal {
	e := launcher.AsError(err)
	r := &Refusal{Message: e.Message, Remedy: e.Hint}
	if refused, ok := errors.AsType[*userns.Error](err); ok {
		r.Cause = refused.Cause
	}
	return r
}
