package launcher

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/internal/wall"
)

// defaultPath is what a sandbox gets whose image sets no PATH; the same as Docker's.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// plan is everything about a sandbox that is decided before the kernel is asked.
type plan struct {
	argv     []string
	env      []string // without HOME, which the user database gives
	user     string
	workdir  string
	hostname string
	mounts   []config.Mount // user's and image's, outermost first
	init     bool
	stop     unix.Signal
	rlimits  []rlimit
}

type rlimit struct {
	resource int
	limit    unix.Rlimit
}

// newPlan joins what was asked with what the image says; Docker's rules for ENTRYPOINT and CMD: a new entrypoint
// drops the image's command.
func newPlan(spec *Spec, base *Base) (*plan, error) {
	app, cfg := &spec.App, &base.Config
	p := &plan{init: app.Init == nil || *app.Init}
	switch {
	case app.Entrypoint != nil:
		p.argv = append(slices.Clone(app.Entrypoint), app.Command...)
	case app.Command != nil:
		p.argv = append(slices.Clone(cfg.Entrypoint), app.Command...)
	default:
		p.argv = append(slices.Clone(cfg.Entrypoint), cfg.Cmd...)
	}
	if len(p.argv) == 0 || p.argv[0] == "" {
		return nil, &Error{Message: fmt.Sprintf("image %q names no command and none was given", base.Name), Hint: "add the command after the image", Exit: ExitWhisk}
	}
	p.hostname = cmp.Or(app.Hostname, app.Name, spec.ID)
	p.env = mergeEnv(cfg.Env, app.Env)
	if !hasEnv(p.env, "PATH") {
		p.env = append(p.env, "PATH="+defaultPath)
	}
	if !hasEnv(p.env, "HOSTNAME") {
		p.env = append(p.env, "HOSTNAME="+p.hostname)
	}
	if app.TTY && !hasEnv(p.env, "TERM") {
		p.env = append(p.env, "TERM=xterm")
	}
	for _, e := range append(slices.Clone(p.env), p.argv...) {
		if strings.ContainsRune(e, 0) && wall.Up("checks of text") {
			return nil, &Error{Message: fmt.Sprintf("a NUL byte in the command or environment of image %q", base.Name), Exit: ExitWhisk}
		}
	}
	p.user = cmp.Or(app.User, cfg.User)
	p.workdir = cmp.Or(app.Workdir, cfg.WorkingDir, "/")
	if !path.IsAbs(p.workdir) {
		p.workdir = "/" + p.workdir
	}
	p.workdir = path.Clean(p.workdir)
	var err error
	if p.stop, err = stopSignal(cmp.Or(app.StopSignal, cfg.StopSignal)); err != nil {
		return nil, err
	}
	asked, err := homeMounts(app, &spec.Guard)
	if err != nil {
		return nil, err
	}
	if p.mounts, err = planMounts(asked, slices.Sorted(maps.Keys(cfg.Volumes))); err != nil {
		return nil, err
	}
	if p.rlimits, err = planLimits(app.Ulimits, loginLimits()); err != nil {
		return nil, err
	}
	return p, nil
}

func stopSignal(s string) (unix.Signal, error) {
	if s == "" {
		return unix.SIGTERM, nil
	}
	_, n, err := config.ParseSignal(s)
	if err != nil {
		return 0, fmt.Errorf("stop signal: %w", err)
	}
	return unix.Signal(n), nil
}

// planMounts adds the image's volumes that nothing else stands on, and sorts so that a mount below another comes
// after it; those of equal depth keep their order.
func planMounts(asked []config.Mount, volumes []string) ([]config.Mount, error) {
	mounts := slices.Clone(asked)
	taken := map[string]bool{}
	for i := range mounts {
		mounts[i].Target = path.Clean("/" + mounts[i].Target)
		t := mounts[i].Target
		if taken[t] {
			return nil, &Error{Message: fmt.Sprintf("two mounts on %q", t), Hint: "give each mount its own target", Exit: ExitWhisk}
		}
		if first, _, _ := strings.Cut(t[1:], "/"); t == "/" || first == "proc" || first == "sys" || first == "dev" && t != "/dev/shm" {
			return nil, &Error{Message: fmt.Sprintf("a mount on %q would hide what whisk itself mounts there", t), Hint: "choose another target", Exit: ExitWhisk}
		}
		taken[t] = true
	}
	for _, v := range volumes {
		t := path.Clean("/" + v)
		if first, _, _ := strings.Cut(t[1:], "/"); taken[t] || t == "/" || first == "proc" || first == "sys" || first == "dev" {
			continue
		}
		taken[t] = true
		mounts = append(mounts, config.Mount{Kind: config.MountVolume, Target: t})
	}
	slices.SortStableFunc(mounts, func(a, b config.Mount) int {
		return strings.Count(a.Target, "/") - strings.Count(b.Target, "/")
	})
	return mounts, nil
}

// mergeEnv lays later entries over earlier ones of the same name, keeping the first one's place. A name alone takes those
// before it away, as docker's -e does with one that is not set where it is typed.
func mergeEnv(lists ...[]string) []string {
	var out []string
	at := map[string]int{}
	for _, list := range lists {
		for _, e := range list {
			k, _, ok := strings.Cut(e, "=")
			if k == "" {
				continue
			}
			if !ok {
				out = slices.DeleteFunc(out, func(e string) bool { return strings.HasPrefix(e, k+"=") })
				clear(at)
				for i, e := range out {
					name, _, _ := strings.Cut(e, "=")
					at[name] = i
				}
				continue
			}
			if i, seen := at[k]; seen {
				out[i] = e
				continue
			}
			at[k] = len(out)
			out = append(out, e)
		}
	}
	return out
}

func hasEnv(env []string, name string) bool { _, ok := lookupEnv(env, name); return ok }

func lookupEnv(env []string, name string) (string, bool) {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v, true
		}
	}
	return "", false
}

// candidates are the paths that execve is tried on, in order; environ(7), execvp(3).
func candidates(file string, env []string) []string {
	if strings.Contains(file, "/") {
		return []string{file}
	}
	search, ok := lookupEnv(env, "PATH")
	if !ok {
		search = defaultPath
	}
	var out []string
	for dir := range strings.SplitSeq(search, ":") {
		out = append(out, path.Join(cmp.Or(dir, "."), file))
	}
	return out
}

// resources maps ulimit names to getrlimit(2)'s resources.
func resources() map[string]int {
	return map[string]int{
		"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
		"fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK,
		"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
		"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
		"rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
	}
}
