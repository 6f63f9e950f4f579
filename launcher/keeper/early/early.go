// Package early starts a keeper before whisk has read its own command line: when the command is whisk run and says of no network
// that is to be joined, it will need one of its own, and that one can come up while this process initialises its packages, reads
// its flags and looks up the id map. Nothing is decided by that: the keeper waits for its id map, its document and its request, and
// whoever has no use for it ends it.
//
// Like package birth it imports nothing that is initialised late; see there.
package early

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/whisk-sandbox/whisk/internal/wall"
	"github.com/whisk-sandbox/whisk/launcher/id"
	"github.com/whisk-sandbox/whisk/userns/birth"
)

// timerSlack is a keeper's. The Go runtime has a thread that looks after the others, every 20 µs while they have much to do; the
// kernel's own slack, 50 µs, has it wake so often that it takes a tenth of a processor. Nothing else in a keeper waits for less
// than milliseconds.
const timerSlack = 500 * time.Microsecond

// StageName is argv[0] of the keeper's stage.
const StageName = "whisk-keeper"

// Keeper is a keeper's process and what it will read.
type Keeper struct {
	Stage    birth.Stage
	Process  *birth.Process // nil: not begun yet
	Conn     *os.File       // this end of its first control connection
	Document *os.File       // where to write its document, a pipe
}

// New makes what the keeper of a network is to be started with.
func New(network string) (*Keeper, error) {
	var fds [2]int
	var err error
	if fds, err = syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0); err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	here, there := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control")
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return nil, errors.Join(os.NewSyscallError("pipe2", err), here.Close(), there.Close())
	}
	in, out := os.NewFile(uintptr(fds[0]), "stage document"), os.NewFile(uintptr(fds[1]), "stage document")
	k := &Keeper{Conn: here, Document: out}
	k.Stage = birth.Stage{Name: StageName, Args: []string{network}, Env: Environment(), Files: []*os.File{there, in}, Setsid: true, Dir: "/", TimerSlack: timerSlack}
	if os.Getenv("WHISK_DEBUG") != "" {
		k.Stage.Stderr = os.Stderr
	}
	return k, nil
}

// Begun lets go of what is the process's alone, after it has been started or could not be.
func (k *Keeper) Begun() {
	for _, f := range k.Stage.Files {
		f.Close()
	}
}

// End ends a keeper that is not needed, and returns when it is gone.
func (k *Keeper) End() error {
	k.Begun()
	err := errors.Join(k.Conn.Close(), k.Document.Close())
	if k.Process != nil {
		err = errors.Join(err, k.Process.End())
	}
	return err
}

// Environment is what of this process's environment a keeper needs; the rest is none of its business.
func Environment() []string {
	var env []string
	for _, name := range append(wall.Environment(), "HOME", "PATH", "TMPDIR", "LANG", "GOCOVERDIR", "WHISK_TEST_ID") {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// leaveSpare is birth.LeaveSpare, once.
var leaveSpare = sync.OnceValue(birth.LeaveSpare)

// LeaveSpare is birth.LeaveSpare, which an early keeper has needed already.
func LeaveSpare() error { return leaveSpare() }

// coming is the keeper that this process has begun when it started; its fields are nil if it has not.
var coming = begin(os.Args)

type begun struct {
	network string
	keeper  chan *Keeper // at most one; none after an error: it will come again, and be told
}

func begin(args []string) begun {
	if !wanted(args) {
		return begun{}
	}
	c := begun{network: id.New(), keeper: make(chan *Keeper, 1)}
	go func() {
		defer close(c.keeper)
		k, err := New(c.network)
		if err != nil {
			return
		}
		if err = LeaveSpare(); err == nil {
			k.Process, err = k.Stage.Begin(func(int) {})
		}
		k.Begun()
		if err != nil {
			_ = k.End()
			return
		}
		c.keeper <- k
	}()
	return c
}

// wanted reports whether a command line is that of a sandbox that will be alone on its network.
func wanted(args []string) bool {
	if len(args) < 2 || args[0] == StageName || args[1] != "run" {
		return false
	}
	for i, a := range args {
		const flag = "--network"
		switch {
		case a == "--help", a == "-h":
			return false
		case len(a) < len(flag) || a[:len(flag)] != flag, a == flag+"=none", a == flag && i+1 < len(args) && args[i+1] == "none":
		default:
			return false
		}
	}
	return true
}

// Network names the network whose keeper was begun when this process started; empty if none was.
func Network() string { return coming.network }

// Take hands over that keeper, once; nil if there is none, or for another network.
func Take(network string) *Keeper { return coming.take(network) }

func (b begun) take(network string) *Keeper {
	if b.keeper == nil || network != b.network {
		return nil
	}
	return <-b.keeper
}

// Leave ends that keeper if nobody has taken it, and returns when it is gone.
func Leave() error {
	if k := coming.take(coming.network); k != nil {
		return k.End()
	}
	return nil
}
