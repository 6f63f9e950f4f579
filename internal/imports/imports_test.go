package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/whisk-sandbox/whisk"

// arrows lists, for each room, the rooms that its code (not its tests) may import. A room is the first element of a
// package's path below the module, the first two below internal/; "." is main. Inside a room anything goes.
// A new room fails the test until it has a line here.
func arrows() map[string][]string {
	return map[string][]string{
		".":                 {"cli", "config", "demo", "doctor", "image", "launcher", "slirp", "userns", "internal/prefault"},
		"cli":               {"config", "demo", "doctor", "image", "launcher", "mend", "slirp", "userns", "internal/wall"},
		"launcher":          {"config", "image", "mend", "slirp", "userns", "internal/prefault", "internal/procfs", "internal/wall"},
		"image":             {"config", "mend", "internal/wall"},
		"slirp":             {"config", "mend", "internal/prefault", "internal/procfs", "internal/wall"},
		"userns":            {"config", "mend", "internal/procfs", "internal/wall"},
		"demo":              {"config"},
		"config":            {},
		"mend":              {},
		"doctor":            {"config", "image", "launcher", "mend", "slirp", "userns"},
		"internal/gendocs":  {"cli"}, // runs at release time only
		"internal/sbom":     {},      // at release time
		"internal/glance":   {},      // for make demo
		"internal/gosu":     {},      // for tests
		"internal/attacks":  {},
		"internal/imports":  {},
		"internal/procfs":   {},
		"internal/outside":  {}, // for tests
		"bench":             {},
		"internal/testuser": {},         // for tests
		"internal/stranger": {"userns"}, // for tests
		"internal/prefault": {},
		"internal/wall":     {},
		"internal/without":  {}, // for tests
	}
}

// banned lists packages that no code of whisk may import directly, unless the room is named.
func banned() []ban {
	return []ban{
		{
			path:   "os/exec",
			except: []string{"userns", "internal/gosu", "internal/gendocs", "internal/testuser", "internal/stranger", "internal/without"},
			why:    "whisk runs no programs of the host but newuidmap and newgidmap, which are userns's",
		},
		{path: "github.com/jotaen/kong-completion", why: "it answers each Tab with a start of whisk; internal/gendocs writes scripts instead"},
		{path: "github.com/alecthomas/mango-kong", why: "it shows hidden flags and no arguments; internal/gendocs writes man(7)"},
		{path: "testing", except: []string{"internal/testuser"}, why: "it registers flags"},
	}
}

// kept lists packages that must not be linked into whisk, by whatever way they come. A path stands for all below it.
func kept() []ban {
	return []ban{
		{path: "go.podman.io/image", why: "5 to 45 ms of every start (its progress bars build a table at init)"},
		{path: "github.com/containers/image", why: "the same under its old name"},
		{path: "github.com/containers/storage", why: "go.podman.io/storage is its maintained home; both would be two stores"},
		{path: "html/template", why: "2.6 MB of methods that the linker must keep, and 0.3 ms of every start"},
		{path: "runtime/cgo", why: "the binary is static"},
	}
}

type ban struct {
	path, why string
	except    []string // rooms
}

func (b ban) hits(path string) bool { return path == b.path || strings.HasPrefix(path, b.path+"/") }

// pkg is what go list says of a package; its tests' imports are not among Imports.
type pkg struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

// room returns the room that a package belongs to; ok is false for other modules' packages.
func room(path string) (name string, ok bool) {
	if path == module {
		return ".", true
	}
	rest, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return "", false
	}
	parts := strings.Split(rest, "/")
	if parts[0] == "internal" && len(parts) > 1 {
		return parts[0] + "/" + parts[1], true
	}
	return parts[0], true
}

// faults is the decision, apart from the tree it is made on.
func faults(pkgs []pkg) []string {
	var all []string
	allowed := arrows()
	for _, p := range pkgs {
		from, ours := room(p.ImportPath)
		if !ours {
			continue
		}
		may, known := allowed[from]
		if !known {
			all = append(all, p.ImportPath+": room \""+from+"\" is not in arrows")
			continue
		}
		for _, path := range p.Imports {
			if to, ours := room(path); ours && to != from && !slices.Contains(may, to) {
				all = append(all, p.ImportPath+" imports "+path+": no arrow from "+from+" to "+to)
			}
			for _, b := range banned() {
				if b.hits(path) && !slices.Contains(b.except, from) {
					all = append(all, p.ImportPath+" imports "+path+": "+b.why)
				}
			}
		}
	}
	return all
}

// list asks the go command, which knows build constraints.
func list(t *testing.T, goarch string, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-json=ImportPath,Imports,Standard"}, args...)...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+goarch, "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	return pkgs
}

func TestArrows(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		pkgs := list(t, goarch, "./...")
		if len(pkgs) < 5 {
			t.Fatalf("go list found %d packages only: %v", len(pkgs), pkgs)
		}
		for _, f := range faults(pkgs) {
			t.Errorf("%s: %s", goarch, f)
		}
	}
}

func TestLinkedPackages(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		pkgs := list(t, goarch, "-deps", ".")
		if len(pkgs) < 50 {
			t.Fatalf("go list found %d packages only; is main.go there?", len(pkgs))
		}
		for _, p := range pkgs {
			for _, b := range kept() {
				if b.hits(p.ImportPath) {
					t.Errorf("%s: %s is linked: %s (go mod why %s)", goarch, p.ImportPath, b.why, p.ImportPath)
				}
			}
		}
	}
}

// TestEarlyPackages keeps what starts a keeper among the packages that are initialised first: it may import what package os
// does, and a few that have nothing to initialise.
func TestEarlyPackages(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		may := map[string]bool{"math": true, "math/rand/v2": true, "strconv": true, "os": true}
		for _, p := range list(t, goarch, "-deps", "os") {
			may[p.ImportPath] = true
		}
		ours := 0
		for _, p := range list(t, goarch, "-deps", "./launcher/keeper/early") {
			if strings.HasPrefix(p.ImportPath, module+"/") {
				ours++
			} else if !may[p.ImportPath] {
				t.Errorf("%s: launcher/keeper/early depends on %s, which is initialised late", goarch, p.ImportPath)
			}
		}
		if ours < 2 {
			t.Errorf("%s: go list found %d packages of ours", goarch, ours)
		}
	}
}

func TestFaultsAreFound(t *testing.T) {
	for name, c := range map[string]struct {
		from, to string
		ok       bool
	}{
		"down":                      {module + "/cli", module + "/launcher/keeper", true},
		"up":                        {module + "/launcher/keeper", module + "/cli", false},
		"sideways":                  {module + "/slirp/dns", module + "/userns", false},
		"inside a room":             {module + "/launcher", module + "/launcher/terminal", true},
		"config from anywhere":      {module + "/image", module + "/config", true},
		"anywhere from config":      {module + "/config", module + "/image", false},
		"into the command line":     {module + "/demo", module + "/cli", false},
		"unknown room":              {module + "/helpers", "fmt", false},
		"exec":                      {module + "/slirp", "os/exec", false},
		"exec in userns":            {module + "/userns", "os/exec", true},
		"completions":               {module + "/cli", "github.com/jotaen/kong-completion", false},
		"other module's own affair": {"example.org/x", "os/exec", true},
		"prefix of another name":    {module + "/cli", "testing2/x", true},
	} {
		got := faults([]pkg{{ImportPath: c.from, Imports: []string{c.to}}})
		if (len(got) == 0) != c.ok {
			t.Errorf("%s: %s → %s: got %q", name, c.from, c.to, got)
		}
	}
}
