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

// begin maps process pid: itself where it may (one id, or as root), else with newuidmap and newgidmap side by side, which it
// starts. What it returns waits for them, and may be left alone.
func (m Map) begin(ctx context.Context, pid int) (end func() error) {
	if m.Single || os.Geteuid() == 0 {
		err := m.write(pid)
		return func() error { return err }
	}
	uids := runHelper(ctx, "newuidmap", capSetUID, pid, m.UIDs)
	gids := runHelper(ctx, "newgidmap", capSetGID, pid, m.GIDs)
	return func() error {
		err := <-gids
		if other := <-uids; other != nil {
			return other // both refuse for the same reason, if they do: one line says it
		}
		return err
	}
}

func (m Map) write(pid int) error {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	if m.Single {
		// Before gid_map: whoever could drop a group could gain what the group is kept from.
		if err := procfs.Write(dir+"setgroups", "deny"); err != nil {
			return diagnose(StepMap, err)
		}
	}
	for _, f := range []struct{ name, text string }{{"uid_map", lines(m.UIDs)}, {"gid_map", lines(m.GIDs)}} {
		if err := procfs.Write(dir+f.name, f.text); err != nil {
			return diagnose(StepMap, err)
		}
	}
	return nil
}

// runHelper starts newuidmap or newgidmap and tells, once, how it ended. It is spelled out without os/exec, which costs a
// millisecond here: it starts with a trial clone to learn about pidfds.
func runHelper(ctx context.Context, name string, capability uint, pid int, ranges []Range) <-chan error {
	ended := make(chan error, 1)
	h := look(name, capability)
	if h.Path == "" {
		m := HelperMissing(name+" is", mend.Here())
		ended <- &Error{Cause: m.Cause, Message: m.What, Remedy: m.Remedy}
		return ended
	}
	argv := []string{name, strconv.Itoa(pid)}
	for _, r := range ranges {
		for _, n := range []uint32{r.Inside, r.Outside, r.Size} {
			argv = append(argv, strconv.FormatUint(uint64(n), 10))
		}
	}
	child, said, err := h.start(argv)
	if err != nil {
		ended <- fmt.Errorf("running %s: %w", name, err)
		return ended
	}
	go func() {
		defer said.Close()
		text, status, err := listen(ctx, child, said)
		switch {
		case err != nil:
			ended <- fmt.Errorf("running %s: %w", name, err)
		case status.Exited() && status.ExitStatus() == 0:
			ended <- nil
		default:
			ended <- refused(h, name, strings.Join(argv[1:], " "), string(text))
		}
	}()
	return ended
}

// start runs the helper; said is what it writes as its errors.
func (h Helper) start(argv []string) (child int, said *os.File, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	said, says, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer says.Close()
	child, err = syscall.ForkExec(h.Path, argv, &syscall.ProcAttr{
		Env:   []string{"PATH=/usr/bin:/bin", "LC_ALL=C"},
		Files: []uintptr{null.Fd(), null.Fd(), says.Fd()},
	})
	if err != nil {
		said.Close()
		return 0, nil, err
	}
	return child, said, nil
}

// listen reads what a helper says and waits for its end, until ctx ends: the helper is setuid, so it cannot be killed, only left.
func listen(ctx context.Context, child int, said *os.File) ([]byte, syscall.WaitStatus, error) {
	stop := context.AfterFunc(ctx, func() { _ = said.Close() })
	defer stop()
	text, err := io.ReadAll(io.LimitReader(said, 4096))
	if ctx.Err() != nil {
		go func() { _, _ = wait(child) }()
		return nil, 0, context.Cause(ctx)
	}
	if err != nil {
		return nil, 0, err
	}
	status, err := wait(child)
	return text, status, err
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
