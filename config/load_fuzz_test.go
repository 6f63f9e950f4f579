package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

func FuzzLoad(f *testing.F) {
	f.Add([]byte(issueExample))
	f.Add(Template("/src/shop"))
	faults, err := filepath.Glob("testdata/faults/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range faults {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range []string{"a.b.c = 1\n[a.b]\n", "[[app]]\n[[app]]\n[app.x]\n", "app = { web = { image = 'x' } }\n[app.web.env]\n", "[app.web]\nready.tcp = 1\nready.timeout = 1d\n"} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), FileName)
	f.Fuzz(func(t *testing.T, data []byte) {
		src := newSource(FileName, data)
		l := newLoader(path, src, LoadOptions{LookupEnv: env("SET", "yes"), Home: "/home/user"})
		l.load()
		faults := src.errs.sorted(FileName)
		placed(t, faults)
		if len(faults) > 0 {
			return
		}
		var any map[string]any
		if err := toml.Unmarshal(src.data, &any); err != nil {
			t.Errorf("it loads, but is no TOML: %v", err)
		}
		for _, a := range l.project.Apps {
			if a.Image == "" || ValidAppName(a.Name) != nil {
				t.Errorf("it loads with the app %+v", a)
			}
			for _, p := range a.Ports {
				if again, err := ParsePort(p.String()); err != nil || again != p {
					t.Errorf("port %v does not survive: %v, %v", p, again, err)
				}
			}
			for _, m := range a.Mounts {
				if again, err := ParseMountFlag(m.String(), "", ""); err != nil || again != m {
					t.Errorf("mount %v does not survive: %v, %v", m, again, err)
				}
			}
		}
	})
}
