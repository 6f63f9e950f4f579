package launcher

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/wall"
	"github.com/whisk-sandbox/whisk/launcher/rights"
)

// Sandbox is one sandbox that this process holds. It is made by Prepare and must be closed. Its methods are safe
// for use by several goroutines, each after the one before it in the order of their declaration has returned.
type Sandbox struct {
	spec   *Spec
	plan   *plan
	rights *rights.Rights
	b      *builder
	maxID  int
	ns     *Namespaces
	built  chan error // the root's result, put back by who takes it
	// building says that built will get a value.
	building bool

	ids  *idCalls // in a sandbox with one id; else nil
	lone *os.File // a pidfd of the app, whose user namespace later commands join; nil: it is the keeper's

	procs *os.File // of its control group; nil: the keeper's
	pidns *os.File // for commands that are born away from the keeper; nil: they are born in the thread's

	fence rights.Fence

	pid    int     // of process 1
	app    *handle // of the app: below an init another one
	more   children
	exited chan struct{}
	code   int

	closing sync.Once
}

// Options are what Prepare needs beside the spec.
type Options struct {
	Dirs Dirs
	Base *Base
	// MaxID is the highest user and group id that is mapped; 0 in a one-id map.
	MaxID int
	// Volumes are the anonymous volumes of an earlier start.
	Volumes []string
	// Namespaces are the sandbox's own from now on, also when Prepare fails; nil: it makes them.
	Namespaces *Namespaces
}

// Prepare plans a sandbox and begins to build its root file system in its namespaces. The sandbox's folder must
// exist. It must be called inside whisk's user namespace with all capabilities, in a mount namespace that the host
// does not see.
func Prepare(spec *Spec, o Options) (_ *Sandbox, err error) {
	ns := o.Namespaces
	defer func() {
		if err != nil && ns != nil {
			ns.Close()
		}
	}()
	p, err := newPlan(spec, o.Base)
	if err != nil {
		return nil, err
	}
	nnp := !spec.NewPrivileges
	r, err := rights.Plan(rights.Request{CapAdd: spec.App.CapAdd, CapDrop: spec.App.CapDrop, NoNewPrivs: &nnp, Seccomp: spec.Seccomp, FakeOwnership: o.MaxID == 0})
	if err != nil {
		return nil, err
	}
	breach(r)
	if err := checkFilter(r, spec.AllowMissing); err != nil {
		return nil, err
	}
	fence, err := planFence(r, spec.NoLandlock, spec.AllowMissing)
	if err != nil {
		return nil, err
	}
	s := &Sandbox{
		fence: fence,
		spec:  spec, plan: p, rights: r, maxID: o.MaxID,
		built: make(chan error, 1), exited: make(chan struct{}),
		b: &builder{dirs: o.Dirs, id: spec.ID, plan: p, guard: &spec.Guard, home: spec.App.Home, base: o.Base, single: o.MaxID == 0, readOnly: spec.App.ReadOnly && wall.Up("read-only root"), anonymous: o.Volumes, root: root{-1}, devpts: -1},
	}
	for _, d := range []string{"root", "upper", "work"} {
		if err := os.MkdirAll(s.b.file(d), 0o755); err != nil {
			return nil, fmt.Errorf("make sandbox: %w", err)
		}
	}
	for _, f := range generatedFiles {
		if err := os.WriteFile(s.b.file(f), nil, 0o644); err != nil {
			return nil, fmt.Errorf("make sandbox: %w", err)
		}
	}
	if ns == nil {
		if ns, err = NewNamespaces(); err != nil {
			return nil, err
		}
	}
	s.ns = ns
	err = s.do(func() error {
		if err := unix.Sethostname([]byte(p.hostname)); err != nil {
			return fmt.Errorf("set host name %q: %w", p.hostname, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if s.maxID == 0 {
		if err := s.do(func() (err error) { s.ids, err = answerIDCalls(r.Caps); return err }); err != nil {
			return nil, err
		}
	}
	s.building = true
	go func() { s.built <- s.do(s.b.build) }()
	return s, nil
}

// breach takes down the walls among the rights that a test has named, in a binary built for that.
func breach(r *rights.Rights) {
	if !wall.Up("seccomp") {
		r.Filter = nil
	}
	if !wall.Up("masked paths") {
		r.Masked = nil
	}
	if !wall.Up("read-only paths") {
		r.ReadOnly = nil
	}
	if !wall.Up("no_new_privs") {
		r.NoNewPrivs = false
	}
}

// do runs f on the sandbox's thread.
func (s *Sandbox) do(f func() error) error { return s.ns.do(f) }

// Built waits until the root file system is whole.
func (s *Sandbox) Built(ctx context.Context) error {
	select {
	case err := <-s.built:
		s.built <- err
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Terminal makes a pty in the sandbox's own devpts, pts(4), and returns its two ends.
func (s *Sandbox) Terminal(owner int) (master, slave *os.File, err error) {
	fd, err := unix.Openat(s.b.devpts, "ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open terminal: %w", err)
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("unlock terminal: %w", err)
	}
	peer, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("number terminal: %w", err)
	}
	sfd, err := unix.Openat(s.b.devpts, fmt.Sprint(peer), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("open terminal's other end: %w", err)
	}
	slave = os.NewFile(uintptr(sfd), "pts")
	if owner != 0 && s.maxID != 0 { // with one id it is the owner's already
		if err := slave.Chown(owner, -1); err != nil {
			master.Close()
			slave.Close()
			return nil, nil, fmt.Errorf("give terminal to user %d: %w", owner, err)
		}
	}
	return master, slave, nil
}

// Control has the sandbox's processes enter a control group; procs is its file (cgroup.Group.Procs), the sandbox's own
// from now on. To be called before Start, at most once; without, they stay in the keeper's.
func (s *Sandbox) Control(procs *os.File) { s.procs = procs }

// Stdio are the standard streams of a command. With a terminal all three are its slave end.
type Stdio [3]*os.File

// Started is what a start has settled.
type Started struct {
	PID     int // in the caller's pid namespace
	Argv    []string
	Env     []string
	User    string
	Workdir string
	Signal  int // the stop signal
	Volumes []string
	Hidden  []string // paths in the sandbox that show empty what the host has there
	Walls   []string // that stand round the app
}

// UserID says as which user id a command will run that asks for this user; empty stands for the app's own. Built
// must have returned nil.
func (s *Sandbox) UserID(user string) (int, error) {
	who, err := s.identify(user)
	if err != nil {
		return 0, err
	}
	return who.uid, nil
}

// Start starts the app; Built must have returned nil. It returns when the program is executing, or with an
// *Error that says why it cannot be.
func (s *Sandbox) Start(stdio Stdio) (*Started, error) {
	who, err := s.identify("")
	if err != nil {
		return nil, err
	}
	env := s.plan.env
	if !hasEnv(env, "HOME") {
		env = append(env, "HOME="+cmp.Or(who.home, "/"))
	}
	if err := checkWorkdir(s.plan.workdir); err != nil {
		return nil, err
	}
	if fd, err := s.b.root.mkdirAll(s.plan.workdir, 0o755); err == nil {
		unix.Close(fd)
	} else {
		return nil, fmt.Errorf("make working directory: %w", err)
	}
	c := &command{argv: s.plan.argv, env: env, workdir: s.plan.workdir, who: who, rights: s.rights, rlimits: s.plan.rlimits, single: s.maxID == 0, lone: s.loneFor(who), tty: s.spec.App.TTY, first: !s.plan.init, oom: s.spec.OOMScore}
	var pidns uintptr
	var veiled veils
	err = s.do(func() error {
		if !wall.Up("descriptors") {
			leakFolder()
		}
		set, err := s.rules(stdio)
		if err != nil {
			return err
		}
		own := -1 // the rules that process 1 puts itself behind
		if set != nil {
			defer set.Close()
			if c.first {
				own = set.FD
			}
		}
		rootfd, err := unix.FcntlInt(uintptr(s.b.root.fd), unix.F_DUPFD_CLOEXEC, 10)
		if err != nil {
			return fmt.Errorf("duplicate root: %w", err)
		}
		defer unix.Close(rootfd)
		one := born{
			flags: unix.CLONE_NEWPID,
			procs: s.procs,
			root: func(p *script) {
				veiled = rootScript(p, rootfd, own, s.procs != nil, s.rights, s.plan.rlimits)
			},
			name: c.argv[0],
		}
		app := func(p *script) { appScript(p, c) }
		if c.first {
			one.stdio, one.app = (*[3]*os.File)(&stdio), app
		}
		var told *os.File
		listening := false
		second := born{procs: s.procs, stdio: (*[3]*os.File)(&stdio), app: app, name: c.argv[0], orphan: true}
		var prepared *unborn
		if !c.first {
			var w int
			if told, w, err = pipeToTell(); err != nil {
				return err
			}
			defer unix.Close(w)
			defer func() {
				if !listening {
					told.Close()
				}
			}()
			one.told, one.appPID = w, appPID()
			if s.goesAway() { // the process in between takes a number
				one.appPID = 3
			} else {
				if one.appPID == 2 {
					second.tid = 3
				}
				if prepared, err = second.prepare(); err != nil {
					return err
				}
			}
			defer func() { prepared.close() }()
		}
		var first *handle
		if s.pid, first, err = bear(one); err != nil {
			return err
		}
		s.app, pidns = first, one.flags
		if told != nil {
			listening = true
			go func() { defer told.Close(); s.more.listen(told) }()
		}
		// Later commands of this thread are born in the same pid namespace.
		if s.goesAway() {
			err = s.openPIDNamespace()
		} else {
			err = unix.Setns(first.fd, unix.CLONE_NEWPID)
		}
		if err != nil {
			// An app that has ended already cannot be joined, and need not be; pidfd_open(2) says that it has.
			if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(first.fd), Events: unix.POLLIN}}, 1000); n == 0 {
				return fmt.Errorf("enter pid namespace: %w", err)
			}
		}
		if set != nil {
			if err := set.Restrict(); err != nil && wall.Up(failsClosed) {
				return fenceError(err)
			}
		}
		if c.first {
			return nil
		}
		if prepared == nil {
			second.away = s.pidns
			if prepared, err = second.prepare(); err != nil {
				return err
			}
		}
		_, h, err := prepared.fork()
		if err != nil {
			return err
		}
		first.close()
		s.app = h
		return nil
	})
	if s.pid != 0 {
		go s.reap()
	}
	if err != nil {
		if s.pid != 0 {
			_ = unix.Kill(s.pid, unix.SIGKILL)
			<-s.exited
			s.pid = 0
		}
		return nil, err
	}
	s.keepLone(who)
	user := s.plan.user
	return &Started{PID: s.pid, Argv: c.argv, Env: env, User: user, Workdir: c.workdir, Signal: int(s.plan.stop), Volumes: s.b.anonymous, Hidden: s.b.hidden, Walls: s.walls(pidns, veiled)}, nil
}

// pipeToTell makes the pipe on which init tells of its children.
func pipeToTell() (*os.File, int, error) {
	var p [2]int
	if err := highPipe(&p); err != nil {
		return nil, -1, err
	}
	if err := unix.SetNonblock(p[0], true); err != nil {
		return nil, -1, fmt.Errorf("make pipe: %w", err)
	}
	return os.NewFile(uintptr(p[0]), "told"), p[1], nil
}

// reap waits for process 1, whose status is the app's. It is not gone before all other processes are.
func (s *Sandbox) reap() {
	s.code = waitFor(s.pid)
	s.app.close()
	close(s.exited)
}

// Exited is closed when the app has ended and with it all processes of the sandbox.
func (s *Sandbox) Exited() <-chan struct{} { return s.exited }

// ExitCode is 0-255, 128+n for signal n; to be called after Exited.
func (s *Sandbox) ExitCode() int { return s.code }

// Signal sends a signal to the app. One that has ended is no error.
func (s *Sandbox) Signal(sig unix.Signal) error { return s.app.signal(sig) }

// Volumes are the anonymous volumes that were made so far; for a record of a start that failed.
func (s *Sandbox) Volumes() []string { return s.b.anonymous }

// Close kills what still runs and lets go of the namespaces. The kernel takes them down in its own time.
func (s *Sandbox) Close() {
	s.closing.Do(func() {
		if s.pid != 0 {
			select {
			case <-s.exited:
			default:
				_ = unix.Kill(s.pid, unix.SIGKILL)
			}
			<-s.exited
		}
		if s.building {
			<-s.built
		}
		s.ns.Close()
		s.ids.close()
		for _, f := range []*os.File{s.procs, s.pidns} {
			if f != nil {
				f.Close()
			}
		}
		if s.lone != nil {
			s.lone.Close()
		}
		for _, fd := range []int{s.b.root.fd, s.b.devpts} {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	})
}
