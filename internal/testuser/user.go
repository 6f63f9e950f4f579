package testuser

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// The users that tests run as.
const (
	WithSubIDs    = "whisktest"  // owns sub-id ranges of 65536 ids
	WithoutSubIDs = "whisknosub" // owns none: the one-id case
	Root          = "root"       // the suite's own process
)

// subIDs is how many subordinate ids a user gets: what useradd(8) gives by default, and what images count on.
const subIDs = 65536

// lockFile keeps test binaries that go test runs side by side from making the same user at once. It is in /run
// because only root may write there: a name in /tmp could be a stranger's.
const lockFile = "/run/whisk-testuser.lock"

// User is an ordinary user with fresh folders of its own.
type User struct {
	Name     string
	UID, GID uint32
	// Dir is a folder of mode 0700 that the user owns; HOME, the XDG folders and TMPDIR are below it.
	Dir string
}

// Close removes the user's folders and whatever is in them. The user itself stays for the next run.
func (u User) Close() error { return os.RemoveAll(u.Dir) }

// Ensure makes the user of that name if there is none, with a range of subordinate ids or without any, and gives
// it fresh folders. It must be called by root; any number of processes may call it at once.
func Ensure(name string, subids bool) (User, error) {
	if os.Geteuid() != 0 {
		return User{}, errors.New("making a user for tests: only root can")
	}
	if subids {
		for _, helper := range []string{"newuidmap", "newgidmap"} {
			if _, err := exec.LookPath(helper); err != nil {
				return User{}, fmt.Errorf("making a user for tests: %s is missing; run: apt-get install -y uidmap", helper)
			}
		}
	}
	account, err := ensureAccount(name, subids)
	if err != nil {
		return User{}, fmt.Errorf("making user %q for tests: %w", name, err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return User{}, fmt.Errorf("reading uid of %q: %w", name, err)
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return User{}, fmt.Errorf("reading gid of %q: %w", name, err)
	}
	u := User{Name: name, UID: uint32(uid), GID: uint32(gid)}
	// The name is short because the path of a unix socket, which tests make below, ends at 107 bytes (unix(7)).
	if u.Dir, err = os.MkdirTemp("", "wt"); err != nil {
		return User{}, fmt.Errorf("making folders for tests: %w", err)
	}
	for _, sub := range []string{"", "home", "data", "config", "cache", "state", "run", "t"} {
		dir := filepath.Join(u.Dir, sub)
		if sub != "" {
			err = os.Mkdir(dir, 0o700)
		}
		if err == nil {
			err = os.Chown(dir, int(u.UID), int(u.GID))
		}
		if err != nil {
			return User{}, errors.Join(fmt.Errorf("making folders for tests: %w", err), u.Close())
		}
	}
	return u, nil
}

// Env is the environment that commands of the user start with: fresh folders, and of this process's variables
// only PATH, LANG, GOCOVERDIR and those that begin with WHISK_.
func (u User) Env() []string {
	env := []string{
		"USER=" + u.Name, "LOGNAME=" + u.Name, "SHELL=/bin/sh",
		"HOME=" + filepath.Join(u.Dir, "home"),
		"XDG_DATA_HOME=" + filepath.Join(u.Dir, "data"),
		"XDG_CONFIG_HOME=" + filepath.Join(u.Dir, "config"),
		"XDG_CACHE_HOME=" + filepath.Join(u.Dir, "cache"),
		"XDG_STATE_HOME=" + filepath.Join(u.Dir, "state"),
		"XDG_RUNTIME_DIR=" + filepath.Join(u.Dir, "run"),
		"TMPDIR=" + filepath.Join(u.Dir, "t"),
	}
	for _, entry := range os.Environ() {
		key, _, _ := strings.Cut(entry, "=")
		if key == "PATH" || key == "LANG" || key == "GOCOVERDIR" || strings.HasPrefix(key, "WHISK_") {
			env = append(env, entry)
		}
	}
	return env
}

// Command is a command that runs as the user, in the user's home, with the environment of Env. Root only.
func Command(u User, argv ...string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = u.Env()
	cmd.Dir = filepath.Join(u.Dir, "home")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: []uint32{u.GID}},
	}
	return cmd
}

func ensureAccount(name string, subids bool) (*user.User, error) {
	lock, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("locking %s: %w", lockFile, err)
	}
	account, err := user.Lookup(name)
	if errors.As(err, new(user.UnknownUserError)) {
		// No ranges from useradd: whether it gives some depends on login.defs, so they are added below.
		err = run("useradd", "--create-home", "--shell", "/bin/sh", "--key", "SUB_UID_COUNT=0", "--key", "SUB_GID_COUNT=0", name)
		if err == nil {
			account, err = user.Lookup(name)
		}
	}
	if err != nil {
		return nil, err
	}
	for _, ids := range []struct{ file, add string }{{"/etc/subuid", "--add-subuids"}, {"/etc/subgid", "--add-subgids"}} {
		text, err := os.ReadFile(ids.file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		owned, free := scan(string(text), name, account.Uid)
		switch {
		case owned && !subids:
			return nil, fmt.Errorf("it must have no subordinate ids, but %s lists some", ids.file)
		case !owned && subids:
			if err := run("usermod", ids.add, fmt.Sprintf("%d-%d", free, free+subIDs-1), name); err != nil {
				return nil, err
			}
		}
	}
	return account, nil
}

// scan reads subuid(5) or subgid(5): whether the user owns a range, and the first id above all ranges.
func scan(text, name, uid string) (owned bool, free uint64) {
	free = 100000 // where useradd begins (SUB_UID_MIN, login.defs(5))
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) != 3 {
			continue
		}
		owned = owned || fields[0] == name || fields[0] == uid
		start, err1 := strconv.ParseUint(fields[1], 10, 32)
		size, err2 := strconv.ParseUint(fields[2], 10, 32)
		if err1 == nil && err2 == nil {
			free = max(free, start+size)
		}
	}
	return owned, free
}

func run(argv ...string) error {
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("running %s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
