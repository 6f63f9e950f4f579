package userns

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/whisk-sandbox/whisk/internal/procfs"
	"github.com/whisk-sandbox/whisk/mend"
)

// write maps process pid: itself where it may (one id, or as root), else with newuidmap and newgidmap side by side.
func (m Map) write(ctx context.Context, pid int) error {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	if m.Single {
		// Before gid_map: whoever could drop a group could gain what the group is kept from.
		if err := procfs.Write(dir+"setgroups", "deny"); err != nil {
			return diagnose(StepMap, err)
		}
	}
	if m.Single || os.Geteuid() == 0 {
		for _, f := range []struct{ name, text string }{{"uid_map", lines(m.UIDs)}, {"gid_map", lines(m.GIDs)}} {
			if err := procfs.Write(dir+f.name, f.text); err != nil {
				return diagnose(StepMap, err)
			}
		}
		return nil
	}
	uids := make(chan error, 1)
	go func() { uids <- runHelper(ctx, "newuidmap", capSetUID, pid, m.UIDs) }()
	err := runHelper(ctx, "newgidmap", capSetGID, pid, m.GIDs)
	if other := <-uids; other != nil {
		return other // both refuse for the same reason, if they do: one line says it
	}
	return err
}

// runHelper runs newuidmap or newgidmap. It is spelled out without os/exec, which costs a millisecond here: it
// starts with a trial clone to learn about pidfds.
func runHelper(ctx context.Context, name string, capability uint, pid int, ranges []Range) error {
	h := look(name, capability)
	if h.Path == "" {
		m := HelperMissing(name+" is", mend.Here())
		return &Error{Cause: m.Cause, Message: m.What, Remedy: m.Remedy}
	}
	argv := []string{name, strconv.Itoa(pid)}
	for _, r := range ranges {
		for _, n := range []uint32{r.Inside, r.Outside, r.Size} {
			argv = append(argv, strconv.FormatUint(uint64(n), 10))
		}
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("running %s: %w", name, err)
	}
	defer null.Close()
	said, says, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("running %s: %w", name, err)
	}
	defer said.Close()
	child, err := syscall.ForkExec(h.Path, argv, &syscall.ProcAttr{
		Env:   []string{"PATH=/usr/bin:/bin", "LC_ALL=C"},
		Files: []uintptr{null.Fd(), null.Fd(), says.Fd()},
	})
	says.Close()
	if err != nil {
		return fmt.Errorf("running %s: %w", name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = said.Close() }) // setuid: it cannot be killed, only left
	defer stop()
	text, err := io.ReadAll(io.LimitReader(said, 4096))
	if ctx.Err() != nil {
		go func() { _, _ = wait(child) }()
		return fmt.Errorf("running %s: %w", name, context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("running %s: %w", name, err)
	}
	status, err := wait(child)
	if err != nil {
		return fmt.Errorf("running %s: %w", name, err)
	}
	if status.Exited() && status.ExitStatus() == 0 {
		return nil
	}
	return refused(h, name, strings.Join(argv[1:], " "), string(text))
}

func wait(pid int) (status syscall.WaitStatus, err error) {
	for {
		_, err = syscall.Wait4(pid, &status, 0, nil)
		if err != syscall.EINTR {
			return status, err
		}
	}
}

// refused makes one line of what the helper said.
func refused(h Helper, name, args, said string) error {
	if err := h.Power(noNewPrivs(), mend.Here()); err != nil {
		return err
	}
	said = strings.Join(strings.Fields(strings.ReplaceAll(said, name+":", "")), " ")
	if said == "" {
		said = "without a word"
	}
	e := &Error{Cause: CauseHelperRefused, Message: fmt.Sprintf("%s refused the map %s: %s", name, args, said)}
	if strings.Contains(said, "not allowed") {
		e.Remedy = "compare the map with what is granted: getsubids $USER; getsubids -g $USER"
	}
	return e
}
