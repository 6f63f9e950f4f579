package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/userns"
)

// Descriptors that a keeper is started with.
const (
	bornFD  = 3 // its first control connection
	stageFD = 4 // the stage document
)

// Main is the keeper's stage. It returns the process's exit code when nothing is left on its network.
func Main() int {
	from := newPeers()
	file := os.NewFile(bornFD, "control")
	born, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return report(fmt.Errorf("use control connection: %w", err))
	}
	doc, err := prepare()
	if err != nil {
		refuse(born, err)
		return report(err)
	}
	if err := run(doc, born, from); err != nil {
		return report(err)
	}
	return 0
}

// prepare makes this process what a keeper is to be.
func prepare() (*stage, error) {
	if err := userns.Enter(); err != nil {
		return nil, err
	}
	doc, err := readStage()
	if err != nil {
		return nil, err
	}
	// Other processes of this user may not look into this one, ptrace(2): it holds secrets of several sandboxes.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("close memory to others: %w", err)
	}
	// The name that ps shows; the re-executed binary would be called "exe".
	if name, err := unix.BytePtrFromString(StageName); err == nil {
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0)
	}
	unix.Umask(0o022)
	raiseDescriptors()
	return doc, nil
}

// report is for WHISK_DEBUG; otherwise standard error is /dev/null and the command says that the keeper ended.
func report(err error) int {
	fmt.Fprintln(os.Stderr, "whisk: keeper:", err)
	return launcher.ExitWhisk
}

// refuse answers the request that a keeper was started for, when it cannot serve.
func refuse(born net.Conn, err error) {
	b, merr := json.Marshal(Event{Type: EventError, Error: launcher.AsError(err)})
	if merr == nil {
		fmt.Fprintf(born, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s\n", b)
	}
	born.Close()
}

func readStage() (*stage, error) {
	f := os.NewFile(stageFD, "stage")
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("read stage document: %w", err)
	}
	var doc stage
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("read stage document: %w", err)
	}
	if doc.Version != stageVersion || doc.Network == "" || !filepath.IsAbs(doc.Dirs.Data) || !filepath.IsAbs(doc.Dirs.Run) {
		return nil, errors.New("read stage document: not one of this version")
	}
	return &doc, nil
}

// raiseDescriptors allows as many descriptors as the login may have: each connection that whisk carries needs two.
func raiseDescriptors() {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) == nil {
		r.Cur = r.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &r)
	}
}

func run(doc *stage, born net.Conn, from peers) error {
	dir := doc.Dirs.Network(doc.Network)
	var lock *os.File
	err := doc.Dirs.Settle(func() (err error) {
		lock, err = takeNetwork(dir)
		return err
	})
	if errors.Is(err, unix.EAGAIN) {
		born.Close() // the command sees it as a keeper that is leaving, and connects to the other one
		return err
	}
	if err != nil {
		refuse(born, err)
		return err
	}
	defer lock.Close()
	sock := filepath.Join(dir, "control.sock")
	l, err := listen(dir)
	if err != nil {
		refuse(born, err)
		return errors.Join(err, os.RemoveAll(dir))
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := newServer(ctx, doc)
	if doc.Egress != "" {
		go func() { _, _ = s.network(ctx, doc.Egress) }() // whoever needs it gets the error again
	}
	ln := newListener(l, born, from)
	err = s.serve(ln)
	// Nobody can connect any more; then the network's name is free again, and the egress log whole.
	_ = os.Remove(sock)
	err = errors.Join(err, s.endNetwork())
	s.sweeping.Wait()
	return errors.Join(err, os.Remove(filepath.Join(dir, "lock")), os.Remove(dir))
}

// takeNetwork locks the network for the life of this process. A lock file that another keeper has removed in the
// meantime does not count.
func takeNetwork(dir string) (*os.File, error) {
	for {
		if err := os.MkdirAll(dir, launcher.OwnerOnly(0o755)); err != nil {
			return nil, fmt.Errorf("make network's folder: %w", err)
		}
		f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open network's lock: %w", err)
		}
		if err := launcher.TakeLock(f); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock network: %w", err)
		}
		if launcher.InPlace(f) {
			return f, nil
		}
		f.Close()
	}
}

// listen makes the control socket, through the folder's descriptor: a socket's path is limited to 108 bytes.
func listen(dir string) (*net.UnixListener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open network's folder: %w", err)
	}
	defer d.Close()
	name := fmt.Sprintf("/proc/self/fd/%d/control.sock", d.Fd())
	_ = os.Remove(name) // of a killed keeper: the lock is ours
	old := unix.Umask(int(0o777 &^ launcher.OwnerOnly(0o666)))
	defer unix.Umask(old)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	return l, nil
}
