package launcher

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher/cgroup"
)

func TestCommandFollowsDockersRules(t *testing.T) {
	img := imagespec.ImageConfig{Entrypoint: []string{"entry"}, Cmd: []string{"cmd", "arg"}}
	for name, c := range map[string]struct {
		app  config.App
		img  imagespec.ImageConfig
		want []string
	}{
		"image alone":                       {config.App{}, img, []string{"entry", "cmd", "arg"}},
		"command replaces CMD":              {config.App{Command: []string{"x"}}, img, []string{"entry", "x"}},
		"entrypoint drops CMD":              {config.App{Entrypoint: []string{"e"}}, img, []string{"e"}},
		"entrypoint and command":            {config.App{Entrypoint: []string{"e"}, Command: []string{"x"}}, img, []string{"e", "x"}},
		"empty entrypoint clears":           {config.App{Entrypoint: []string{}, Command: []string{"x"}}, img, []string{"x"}},
		"empty command clears CMD":          {config.App{Command: []string{}}, img, []string{"entry"}},
		"CMD alone":                         {config.App{}, imagespec.ImageConfig{Cmd: []string{"sh"}}, []string{"sh"}},
		"nothing at all":                    {config.App{}, imagespec.ImageConfig{}, nil},
		"entrypoint cleared and no command": {config.App{Entrypoint: []string{}}, img, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := newPlan(&Spec{ID: "0123456789ab", App: c.app}, &Base{Name: "img", Config: c.img})
			if c.want == nil {
				if err == nil {
					t.Fatalf("want an error, got %q", p.argv)
				}
				return
			}
			if err != nil || !slices.Equal(p.argv, c.want) {
				t.Errorf("want %q, got %+v, %v", c.want, p, err)
			}
		})
	}
}

func TestPlanTakesTheImagesDefaults(t *testing.T) {
	base := &Base{Name: "img", Config: imagespec.ImageConfig{
		Cmd: []string{"x"}, User: "nginx", WorkingDir: "srv/../app", StopSignal: "SIGQUIT",
		Env: []string{"A=1", "B=2"}, Volumes: map[string]struct{}{"/data": {}, "/proc/x": {}, "/data/sub": {}},
	}}
	p, err := newPlan(&Spec{ID: "0123456789ab", App: config.App{Env: []string{"B=3", "C=4"}}}, base)
	if err != nil {
		t.Fatal(err)
	}
	if p.user != "nginx" || p.workdir != "/app" || p.stop != unix.SIGQUIT || p.hostname != "0123456789ab" || !p.init {
		t.Errorf("got %+v", p)
	}
	if want := []string{"A=1", "B=3", "C=4", "PATH=" + defaultPath, "HOSTNAME=0123456789ab"}; !slices.Equal(p.env, want) {
		t.Errorf("environment: want %q, got %q", want, p.env)
	}
	want := []config.Mount{{Kind: config.MountVolume, Target: "/data"}, {Kind: config.MountVolume, Target: "/data/sub"}}
	if !reflect.DeepEqual(p.mounts, want) {
		t.Errorf("mounts: want %v, got %v", want, p.mounts)
	}
}

func TestMountsAreSortedAndRefused(t *testing.T) {
	bind := func(targets ...string) (out []config.Mount) {
		for _, target := range targets {
			out = append(out, config.Mount{Kind: config.MountBind, Source: "/src", Target: target})
		}
		return out
	}
	got, err := planMounts(bind("/a/b/c", "/z", "/a"), []string{"/z", "/v"})
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, m := range got {
		order = append(order, m.Target)
	}
	if want := []string{"/z", "/a", "/v", "/a/b/c"}; !slices.Equal(order, want) {
		t.Errorf("order: want %v, got %v", want, order)
	}
	for _, bad := range [][]string{{"/"}, {"/proc"}, {"/proc/sys"}, {"/sys/fs"}, {"/dev"}, {"/dev/pts"}, {"/a", "/a/../a"}, {"/x/../proc/y"}} {
		if got, err := planMounts(bind(bad...), nil); err == nil {
			t.Errorf("mounts on %v: want an error, got %v", bad, got)
		}
	}
	if _, err := planMounts(bind("/dev/shm"), nil); err != nil {
		t.Errorf("a mount on /dev/shm: %v", err)
	}
}

func TestLimitsThatCannotBeKeptAreRefused(t *testing.T) {
	able := cgroup.Machine{Unified: true, Systemd: true, User: true, Bus: "/run/user/1000/bus", Controllers: []string{"cpu", "io", "memory", "pids"}}
	for name, app := range map[string]config.App{"memory": {Memory: 1 << 30}, "cpu": {CPUs: 0.5}, "pids": {Pids: 10}, "weight": {BlkioWeight: 20}} {
		if _, _, err := KeepLimits(&Spec{App: app}, cgroup.Machine{}); err == nil || AsError(err).Exit != ExitWhisk || AsError(err).Hint == "" {
			t.Errorf("%s: want an error with exit 125 and a hint, got %v", name, err)
		}
		if kept, lost, err := KeepLimits(&Spec{App: app, BestEffort: true}, cgroup.Machine{}); err != nil || lost == "" || !kept.None() {
			t.Errorf("%s, best effort: want it lost by name, got %+v, %q, %v", name, kept, lost, err)
		}
		if kept, lost, err := KeepLimits(&Spec{App: app}, able); err != nil || lost != "" || !reflect.DeepEqual(kept, ControlLimits(&app)) {
			t.Errorf("%s on a machine that can: got %+v, %q, %v", name, kept, lost, err)
		}
	}
	app := config.App{DeviceRates: []config.DeviceRate{{Path: "/dev/null", ReadBPS: 1}}}
	if _, _, err := KeepLimits(&Spec{App: app}, able); err == nil || !strings.Contains(err.Error(), `"/dev/null" is no block device`) {
		t.Errorf("a rate for what is no disk: %v", err)
	}
}

func TestCandidates(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		env  []string
		want string
	}{
		"with a slash":      {"./x", []string{"PATH=/a"}, "./x"},
		"along PATH":        {"x", []string{"PATH=/a:/b"}, "/a/x /b/x"},
		"empty part is dot": {"x", []string{"PATH=/a::/b"}, "/a/x x /b/x"},
		"no PATH":           {"x", nil, "/usr/local/sbin/x /usr/local/bin/x /usr/sbin/x /usr/bin/x /sbin/x /bin/x"},
	} {
		if got := strings.Join(candidates(c.file, c.env), " "); got != c.want {
			t.Errorf("%s: want %q, got %q", name, c.want, got)
		}
	}
}

func TestMergeEnvTakesAway(t *testing.T) {
	got := mergeEnv([]string{"A=1", "B=2", "C=3"}, []string{"B", "C=4", "B2=5", "NOT_THERE"}, []string{"A", "A=6"})
	if want := []string{"C=4", "B2=5", "A=6"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
