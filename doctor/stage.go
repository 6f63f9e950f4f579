package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/image"
	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/slirp"
	"github.com/whisk-sandbox/whisk/userns"
	"github.com/whisk-sandbox/whisk/userns/birth"
)

// StageName is argv[0] of the process that tries things in namespaces of its own.
const StageName = "whisk-doctor"

const documentVersion = 2

// document is what the stage is given on descriptor 3.
type document struct {
	Version int           `json:"version"`
	Dirs    launcher.Dirs `json:"dirs"`
	Place   string        `json:"place"`  // the store's folder, or the nearest one above it
	Single  bool          `json:"single"` // only one id is mapped
}

// answer is what the stage says on standard output.
type answer struct {
	Refusal *Refusal `json:"refusal,omitempty"` // the namespace gives no rights
	Inside  *Inside  `json:"inside,omitempty"`
}

// maxAnswer bounds what is read of the stage.
const maxAnswer = 1 << 20

func runStage(ctx context.Context, dirs launcher.Dirs, place string) (*Inside, error) {
	ids, err := userns.Find(userns.Current())
	if err != nil {
		return nil, err
	}
	doc, err := json.Marshal(document{Version: documentVersion, Dirs: dirs, Place: place, Single: ids.Single})
	if err != nil {
		return nil, fmt.Errorf("encode stage document: %w", err)
	}
	in, give, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make stage document: %w", err)
	}
	defer in.Close()
	_, err = give.Write(doc) // a few hundred bytes: a pipe holds them
	give.Close()
	if err != nil {
		return nil, fmt.Errorf("make stage document: %w", err)
	}
	take, out, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make stage document: %w", err)
	}
	defer take.Close()
	p, err := ids.Start(ctx, birth.Stage{
		Name: StageName, Env: os.Environ(), Files: []*os.File{in}, Stdout: out,
		Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL,
	})
	out.Close()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Kill() })
	defer stop()
	said, rerr := io.ReadAll(io.LimitReader(take, maxAnswer))
	ws, err := p.Wait()
	if err := errors.Join(rerr, err); err != nil {
		return nil, fmt.Errorf("trying namespaces: %w", err)
	}
	var a answer
	switch err := json.Unmarshal(said, &a); {
	case a.Refusal != nil:
		return nil, &userns.Error{Cause: a.Refusal.Cause, Message: a.Refusal.Message, Remedy: a.Refusal.Remedy}
	case err != nil || a.Inside == nil:
		return nil, fmt.Errorf("trying namespaces: the stage ended with %v and said %.100q", ws, said)
	}
	return a.Inside, nil
}

// StageMain is what the stage does: it enters its namespaces, tries, and says what it found.
func StageMain() int {
	if len(os.Args) == 2 {
		switch os.Args[1] {
		case mountsProc:
			return mountProc()
		case notifies:
			return notify()
		case waits:
			_, _ = io.Copy(io.Discard, os.Stdin) // until whoever started it is done
			return 0
		}
	}
	var a answer
	if err := userns.Enter(); err != nil {
		a.Refusal = refusalOf(err)
	} else {
		var doc document
		in := os.NewFile(3, "stage document")
		err := json.NewDecoder(io.LimitReader(in, maxAnswer)).Decode(&doc)
		in.Close()
		if err != nil || doc.Version != documentVersion || doc.Dirs.Data == "" || doc.Place == "" {
			return launcher.ExitWhisk
		}
		a.Inside = try(doc)
	}
	if json.NewEncoder(os.Stdout).Encode(a) != nil {
		return launcher.ExitWhisk
	}
	return 0
}

// try is all that needs the rights of root in a user namespace.
func try(doc document) *Inside {
	found := &Inside{Namespaces: word(tryNamespaces()), Proc: word(tryProc()), Overlay: word(tryOverlay(doc.Place))}
	if doc.Single {
		found.Notify, found.Trace = word(tryNotify()), word(tryTrace())
	}
	k := slirp.CheckKernel()
	found.Tables, found.TProxy, found.Socket, found.Apart = word(k.Tables), word(k.TProxy), word(k.Socket), word(k.Apart)
	if _, err := os.Stat(doc.Dirs.Storage()); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			found.Store = &Refusal{Message: err.Error()}
		}
		return found // nothing was pulled yet
	}
	if err := openStore(doc, found); err != nil {
		found.Store = refusalOf(err)
	}
	return found
}

// tryNamespaces makes those of one sandbox.
func tryNamespaces() error {
	n, err := launcher.NewNamespaces()
	if err == nil {
		n.Close()
	}
	return err
}

// mountsProc is the argument of the process that tries a /proc of its own.
const mountsProc = "proc"

// tryProc mounts one in a process id namespace of its own. In a container whose engine covers parts of /proc, the kernel
// refuses it, as it would show them again (mount_too_revealing in fs/namespace.c).
func tryProc() error {
	pid, err := syscall.ForkExec("/proc/self/exe", []string{StageName, mountsProc}, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return fmt.Errorf("make pid namespace: %w", err)
	}
	ws, err := await(pid)
	switch {
	case err != nil:
		return fmt.Errorf("make pid namespace: %w", err)
	case ws.Exited() && ws.ExitStatus() == 0:
		return nil
	case ws.Exited():
		return fmt.Errorf("mount /proc: %w", syscall.Errno(ws.ExitStatus()))
	}
	return fmt.Errorf("mount /proc: the process ended with signal %d", ws.Signal())
}

// mountProc is what that process does. Its exit code is the errno; those of mount(2) are below 134.
func mountProc() int {
	err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return int(errno)
	}
	return 0
}

// openStore opens the store as every command does, and looks at the images in it.
func openStore(doc document, found *Inside) error {
	s, err := image.Open(image.Options{GraphRoot: doc.Dirs.Storage(), RunRoot: doc.Dirs.StorageRun(), IgnoreChownErrors: doc.Single})
	if err != nil {
		return err
	}
	found.Images, found.Damaged, err = s.Health(context.Background())
	return errors.Join(err, s.Close())
}

func word(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// tryOverlay does to a folder what a sandbox does to the store: it mounts two layers, reads, writes over and removes.
func tryOverlay(data string) (err error) {
	dir, err := os.MkdirTemp(data, ".doctor-")
	if err != nil {
		return err
	}
	defer func() {
		if rerr := os.RemoveAll(dir); err == nil {
			err = rerr
		}
	}()
	for _, sub := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	for _, name := range []string{"kept", "removed"} {
		if err := os.WriteFile(filepath.Join(dir, "lower", name), []byte("lower"), 0o600); err != nil {
			return err
		}
	}
	// Relative names, as option strings know neither commas nor colons in a path.
	if err := os.Chdir(dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Chdir("/")) }()
	if err := unix.Mount("overlay", "merged", "overlay", unix.MS_NODEV, "userxattr,lowerdir=lower,upperdir=upper,workdir=work"); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount("merged", unix.MNT_DETACH)) }()
	if err := os.WriteFile("merged/kept", []byte("upper"), 0o600); err != nil {
		return err
	}
	if err := os.Remove("merged/removed"); err != nil {
		return err
	}
	// A folder over a removed file needs a whiteout and an extended attribute in the upper layer.
	if err := os.Mkdir("merged/removed", 0o700); err != nil {
		return err
	}
	was, err := os.ReadFile("lower/kept")
	if err == nil && string(was) != "lower" {
		err = errors.New("a write went through to the lower layer")
	}
	return err
}
