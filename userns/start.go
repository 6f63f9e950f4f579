package userns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/userns/birth"
)

// Start runs a stage as root of a new user namespace with this map. It returns when the maps are written and the stage was let
// go; ctx bounds only that, not the stage's life. A machine that refuses is an *Error. The stage's main must call Enter first.
func (m Map) Start(ctx context.Context, s birth.Stage) (*birth.Process, error) {
	var written func() error
	born := func(pid int) { written = m.begin(ctx, pid) }
	p, err := s.Begin(born)
	if _, ok := errors.AsType[*birth.UnmountableError](err); ok {
		if s.Program, err = sealed(); err != nil {
			return nil, err
		}
		defer s.Program.Close()
		p, err = s.Begin(born)
	}
	switch err {
	case nil:
		if err := m.admit(p, s.Name, written); err != nil {
			return nil, err
		}
		return p, nil
	case syscall.EPERM, syscall.EACCES, syscall.ENOSPC, syscall.EUSERS, syscall.EINVAL, syscall.ENOSYS:
		return nil, diagnose(StepClone, err)
	}
	return nil, fmt.Errorf("starting stage %s: %w", s.Name, err) // nothing to do with namespaces: no memory, no such Dir
}

// Admit maps a stage that was begun without, and lets it go; name is for messages. A stage that cannot be mapped is ended.
func (m Map) Admit(ctx context.Context, p *birth.Process, name string) error {
	return m.admit(p, name, m.begin(ctx, p.Pid))
}

func (m Map) admit(p *birth.Process, name string, written func() error) error {
	if err := written(); err != nil {
		return errors.Join(err, p.End())
	}
	if err := p.Admit(m.Single); err != nil {
		return errors.Join(fmt.Errorf("starting stage %s: it ended before it was mapped: %w", name, err), p.End())
	}
	return nil
}

// sealed copies this program into memory that cannot be changed any more, memfd_create(2). It takes some 10 ms and the
// program's size in memory: only where there is no mounting it.
func sealed() (*os.File, error) {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("copy whisk's own program: %w", err)
	}
	defer in.Close()
	fd, err := unix.MemfdCreate("whisk", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // MFD_EXEC: kernel 6.3
		fd, err = unix.MemfdCreate("whisk", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("copy whisk's own program: %w", err)
	}
	out := os.NewFile(uintptr(fd), "whisk")
	if _, err = io.Copy(out, in); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("copy whisk's own program: %w", err)
	}
	return out, nil
}
