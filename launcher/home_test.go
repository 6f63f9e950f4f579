package launcher

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/whisk-sandbox/whisk/config"
)

// laptop has /home on a file system of its own, a copy of the user's home at /srv/alias, and the store on a third disk.
const laptop = `1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
2 1 8:2 / /home rw - ext4 /dev/sda2 rw
3 1 0:5 / /proc rw - proc proc rw
4 1 8:2 /ann /srv/alias rw - ext4 /dev/sda2 rw
5 2 8:3 / /home/ann/.local/share/whisk rw - ext4 /dev/sda3 rw
6 1 0:9 / /run/user/1000 rw - tmpfs tmpfs rw
7 1 8:2 /ann/.ssh /mnt/a\040key rw - ext4 /dev/sda2 rw
`

func TestMountsAreJudgedByWhereTheyLead(t *testing.T) {
	mounts, err := parseMountinfo(laptop)
	if err != nil {
		t.Fatal(err)
	}
	at := func(path string, mount int) *found {
		for _, m := range mounts {
			if m.id == mount {
				rest, ok := pathUnder(path, m.at)
				if !ok {
					t.Fatalf("%s is not on mount %d", path, mount)
				}
				return &found{path: path, place: place{m.place.dev, filepath.Join(m.place.path, rest)}, mount: mount}
			}
		}
		t.Fatalf("no mount %d", mount)
		return nil
	}
	guards := []guarded{
		{guardOwn, at("/home/ann/.local/share/whisk", 5)},
		{guardOwn, at("/run/user/1000/whisk", 6)},
		{guardHome, at("/home/ann", 2)},
		{guardSecret, at("/home/ann/.ssh", 2)},
		{guardSecret, at("/home/ann/.config/containers/auth.json", 2)},
	}
	for _, c := range []struct {
		name            string
		source          *found
		own, home, proc bool
		hidden          []string
	}{
		{"a project in the home", at("/home/ann/project", 2), false, false, false, nil},
		{"a name that only begins like the home", at("/home/anna", 2), false, false, false, nil},
		{"the home", at("/home/ann", 2), false, true, false, []string{".config/containers/auth.json", ".local/share/whisk", ".ssh"}},
		{"all homes", at("/home", 2), false, true, false, []string{"ann/.config/containers/auth.json", "ann/.local/share/whisk", "ann/.ssh"}},
		{"the whole machine", at("/", 1), false, true, false, []string{"home/ann/.config/containers/auth.json", "home/ann/.local/share/whisk", "home/ann/.ssh", "mnt/a key", "proc", "run/user/1000/whisk", "srv/alias/.config/containers/auth.json", "srv/alias/.ssh"}},
		{"the home by another mount", at("/srv/alias", 4), false, true, false, []string{".config/containers/auth.json", ".ssh"}},
		{"a folder of the home by another mount", at("/srv/alias/.config", 4), false, false, false, []string{"containers/auth.json"}},
		{"a folder above another mount of the home", at("/srv", 1), false, true, false, []string{"alias/.config/containers/auth.json", "alias/.ssh"}},
		{"a folder above a mount of a secret", at("/mnt", 1), false, false, false, []string{"a key"}},
		{"a secret by name", at("/home/ann/.ssh", 2), false, false, false, nil},
		{"a folder that holds one", at("/home/ann/.config", 2), false, false, false, []string{"containers/auth.json"}},
		{"the store", at("/home/ann/.local/share/whisk", 5), true, false, false, nil},
		{"in the store", at("/home/ann/.local/share/whisk/storage", 5), true, false, false, nil},
		{"above the store", at("/home/ann/.local/share", 2), false, false, false, []string{"whisk"}},
		{"a control socket", at("/run/user/1000/whisk/networks/x/control.sock", 6), true, false, false, nil},
		{"the runtime directory", at("/run/user/1000", 6), false, false, false, []string{"whisk"}},
		{"processes", at("/proc", 3), false, false, true, nil},
	} {
		got := judgeMount(c.source, mounts, guards)
		var hidden []string
		for _, h := range got.hidings {
			hidden = append(hidden, h.rest)
		}
		if got.own != c.own || got.home != c.home || got.proc != c.proc || !slices.Equal(hidden, c.hidden) {
			t.Errorf("%s: own %v, home %v, proc %v, hidden %q; want %v, %v, %v, %q", c.name, got.own, got.home, got.proc, hidden, c.own, c.home, c.proc, c.hidden)
		}
	}
}

func TestHomeByName(t *testing.T) {
	bind := func(source, target string) config.Mount {
		return config.Mount{Kind: config.MountBind, Source: source, Target: target}
	}
	for _, c := range []struct {
		name   string
		home   string
		mounts []config.Mount
		want   []string
	}{
		{"not asked for", "", []config.Mount{bind("/src", "/src")}, []string{"/src"}},
		{"at its own path", "ro", []config.Mount{bind("/src", "/src")}, []string{"/home/ann", "/src"}},
		{"where a mount says", "ro", []config.Mount{bind("/home/ann", "/h")}, []string{"/h"}},
		{"where a mount of a folder above says", "rw", []config.Mount{bind("/home", "/h")}, []string{"/h"}},
	} {
		got, err := homeMounts(&config.App{Home: c.home, Mounts: c.mounts}, &Guard{Home: "/home/ann"})
		var targets []string
		for _, m := range got {
			targets = append(targets, m.Target)
		}
		if err != nil || !slices.Equal(targets, c.want) {
			t.Errorf("%s: %q, %v; want %q", c.name, targets, err, c.want)
		}
	}
	if _, err := homeMounts(&config.App{Home: "ro"}, &Guard{}); err == nil {
		t.Error("a home that is not known was mounted")
	}
}
