package launcher

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/launcher/rights"
)

func TestWallsAreThoseThatWereBuilt(t *testing.T) {
	whole := func() built {
		return built{
			namespaces: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
			rights:     rights.Rights{Caps: rights.DefaultCaps, NoNewPrivs: true, Filter: make([]unix.SockFilter, 1)},
			profile:    true, landlock: 7, veils: veils{9, 5, true}, secret: true, keyring: true,
		}
	}
	all := whole().walls()
	want := []string{
		"user namespace", "mount namespace", "pid namespace", "network namespace", "ipc namespace", "uts namespace", "cgroup namespace",
		"capabilities", "dumpable", "no_new_privs", "seccomp", "landlock abi 7", "session keyring", "masked paths", "read-only paths", "hidden processes",
	}
	if !slices.Equal(all, want) {
		t.Errorf("all of them: got %q, want %q", all, want)
	}
	for name, c := range map[string]struct {
		without func(*built)
		gone    string // the rest stands
	}{
		"the host's network":               {func(b *built) { b.namespaces &^= unix.CLONE_NEWNET }, "network namespace"},
		"the host's pids":                  {func(b *built) { b.namespaces &^= unix.CLONE_NEWPID }, "pid namespace"},
		"all capabilities":                 {func(b *built) { b.rights.All = true }, "capabilities"},
		"one that sees through":            {func(b *built) { b.rights.Caps |= 1 << unix.CAP_SYS_PTRACE }, "dumpable"},
		"dumpable":                         {func(b *built) { b.secret = false }, "dumpable"},
		"setuid programs":                  {func(b *built) { b.rights.NoNewPrivs = false }, "no_new_privs"},
		"no filter":                        {func(b *built) { b.rights.Filter = nil }, "seccomp"},
		"a filter of id calls only":        {func(b *built) { b.profile = false }, "seccomp"},
		"no landlock":                      {func(b *built) { b.landlock = 0 }, "landlock abi 7"},
		"no keyrings":                      {func(b *built) { b.keyring = false }, "session keyring"},
		"nothing to mask":                  {func(b *built) { b.veils.masked = 0 }, "masked paths"},
		"nothing closed":                   {func(b *built) { b.veils.readOnly = 0 }, "read-only paths"},
		"processes that everybody may see": {func(b *built) { b.veils.hidepid = false }, "hidden processes"},
	} {
		t.Run(name, func(t *testing.T) {
			b := whole()
			c.without(&b)
			want := slices.DeleteFunc(slices.Clone(all), func(w string) bool { return w == c.gone })
			if got := b.walls(); !slices.Equal(got, want) {
				t.Errorf("got %s\nwant %s", strings.Join(got, ", "), strings.Join(want, ", "))
			}
		})
	}
}
