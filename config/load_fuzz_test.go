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
	for _, s := range []string{"a.b.c = 1\n[a.b]\n", "[[app]]\n[[app]]\n[app.x]\n", "app = { web = { image = 'x' } }\n[app.web.env]\n", "[a.b]\n[a]\nc.d=1\nc.e=2\n[a.c.f]\n", "[[a]]\n[a.b]\n[[a]]\n[a.b]\n[[a.c]]\n", "a=[{b.c=1,b.d=2}]\n", "[app.web]\nready.tcp = 1\nready.timeout = 1d\n"} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), FileName)
	f.Fuzz(func(t *testing.T, data []byte) {
		tree := newSource(FileName, data)
		parseDocument(tree).conform()
		var any map[string]any
		if err := toml.Unmarshal(tree.data, &any); (err == nil) != (len(tree.errs) == 0) {
			t.Errorf("go-toml's decoder says %v, whisk's tree says %v", err, tree.errs)
		}
		src := newSource(FileName, data)
		l := newLoader(path, src, LoadOptions{LookupEnv: env("SET", "yes"), Home: "/home/user"})
		l.load()
		faults := src.errs.sorted(FileName)
		placed(t, faults)
		if len(faults) > 0 {
			return
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
