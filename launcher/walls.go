package launcher

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/launcher/rights"
)

// built is what a start has made round an app. Who makes a part notes it here, so that nothing is told of a sandbox that it
// has not.
type built struct {
	namespaces uintptr // CLONE_NEW*
	rights     rights.Rights
	profile    bool // the filter is for the app, and not for the ids of a sandbox with one alone
	landlock   int  // the fence's ABI; 0: none
	veils      veils
	secret     bool // the copies of the keeper cannot be looked into
	keyring    bool // a session keyring of its own
}

// veils are what hides or closes parts of /proc and /sys.
type veils struct {
	masked, readOnly int // paths
	hidepid          bool
}

// walls lists what stands round the app, in the words of docs/security.md.
func (b built) walls() (w []string) {
	for _, n := range namespaceNames {
		if b.namespaces&n.flag != 0 {
			w = append(w, n.name+" namespace")
		}
	}
	may := func(capability int) bool { return b.rights.Caps&(1<<capability) != 0 }
	for _, part := range []struct {
		name   string
		stands bool
	}{
		{"capabilities", !b.rights.All},
		{"dumpable", b.secret && !may(unix.CAP_SYS_PTRACE)}, // which sees through it
		{"no_new_privs", b.rights.NoNewPrivs},
		{"seccomp", b.profile && len(b.rights.Filter) > 0},
		{fmt.Sprintf("landlock abi %d", b.landlock), b.landlock > 0},
		{"session keyring", b.keyring},
		{"masked paths", b.veils.masked > 0},
		{"read-only paths", b.veils.readOnly > 0},
		{"hidden processes", b.veils.hidepid},
	} {
		if part.stands {
			w = append(w, part.name)
		}
	}
	return w
}

// namespaceNames are in the order of docs/security.md.
var namespaceNames = [...]struct {
	flag uintptr
	name string
}{
	{unix.CLONE_NEWUSER, "user"}, {unix.CLONE_NEWNS, "mount"}, {unix.CLONE_NEWPID, "pid"}, {unix.CLONE_NEWNET, "network"},
	{unix.CLONE_NEWIPC, "ipc"}, {unix.CLONE_NEWUTS, "uts"}, {unix.CLONE_NEWCGROUP, "cgroup"},
}

// hasKeyrings tells whether an app's keyctl(2), which is ours, was answered: see appScript.
func hasKeyrings() bool {
	_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	return err != unix.ENOSYS && err != unix.EPERM
}

// walls is of a sandbox whose app has been started.
func (s *Sandbox) walls(pidns uintptr, v veils) []string {
	return built{
		namespaces: unix.CLONE_NEWUSER | s.ns.made | pidns, // Prepare is called in a user namespace of whisk's
		rights:     *s.rights,
		profile:    s.spec.Seccomp != "unconfined",
		landlock:   s.fence.ABI,
		veils:      v,
		secret:     dumpable() == 0,
		keyring:    hasKeyrings(),
	}.walls()
}
