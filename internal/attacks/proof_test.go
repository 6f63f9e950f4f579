package attacks

import (
	"cmp"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// provenRooms are those whose attacks TestWallsAreNeeded proves.
func provenRooms() []string { return []string{"image", "cli"} }

// TestWallsAreNeeded runs the attacks of the packages image and cli that name a wall against a package without that
// wall. Each has to fail there, that is to say that the attack succeeds, or it would prove nothing. Scripts do so by
// themselves (the command attack), and so do the tests named in selfProving. Walls that no build tag takes down, or that
// are a library's, are edited out of the source (cmd/go, -overlay and -modfile).
func TestWallsAreNeeded(t *testing.T) {
	selfProving := map[string]bool{"TestAttackLayerBomb": true}
	named := regexp.MustCompile(`(?m)^// Wall: (.+)\.\nfunc (TestAttack\w+)\(`)
	type key struct{ room, wall string }
	tests := map[key][]string{}
	var files []string
	for _, room := range provenRooms() {
		more, err := filepath.Glob(root + "/" + room + "/*_test.go")
		if err != nil || len(more) == 0 {
			t.Fatal(room, err)
		}
		files = append(files, more...)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			if !selfProving[m[2]] {
				k := key{filepath.Base(filepath.Dir(file)), m[1]}
				tests[k] = append(tests[k], m[2])
			}
		}
	}
	if len(tests) == 0 {
		t.Fatal("no attack names a wall")
	}
	for k, names := range tests {
		wall := k.wall
		t.Run(wall, func(t *testing.T) {
			args := append([]string{"test", "-count=1", "-tags", "breach", "-timeout", "5m", "-v", "-run", "^(" + strings.Join(names, "|") + ")$"}, without(t, wall)...)
			cmd := exec.Command("go", append(args, "./"+k.room)...)
			cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0", "WHISK_BREACH="+wall)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Errorf("every attack is still held")
			}
			verdicts := regexp.MustCompile(`(?m)^ *--- (\w+): (\S+)`).FindAllStringSubmatch(string(out), -1)
			for _, name := range names {
				seen := false
				for _, v := range verdicts {
					part := strings.HasPrefix(v[2], name+"/")
					if v[2] != name && !part {
						continue
					}
					if seen = true; v[1] != "FAIL" {
						t.Errorf("%s: %s without the wall: something else holds it", v[2], v[1])
						continue
					}
					t.Logf("attack %s: %s (%s)", v[2], Held, wall)
				}
				if !seen {
					t.Errorf("%s has not run:\n%s", name, out)
				}
			}
		})
	}
}

// edit replaces a text that stands once in a file: of this module, or of another by its path.
type edit struct{ file, old, new string }

const registryLibrary = "github.com/google/go-containerregistry/"

// edits are what takes a wall down.
func edits(wall string) []edit {
	fileTransport := edit{
		"image/registry.go", "\tresp, err := w.next.RoundTrip(r)\n",
		"\tif s := r.URL.Scheme; s == \"file\" || s == \"gopher\" {\n\t\treturn http.NewFileTransport(http.Dir(\"/\")).RoundTrip(r)\n\t}\n\tresp, err := w.next.RoundTrip(r)\n",
	}
	switch wall {
	case "redirect kinds":
		return []edit{
			{"image/registry_guard.go", "len(via) >= 10", "len(via) >= 1000"},
			{"image/registry_guard.go", `s != "https" && s != "http" {`, `s == "never" {`},
			fileTransport,
		}
	case "token realms":
		return []edit{
			{registryLibrary + "pkg/v1/remote/transport/bearer.go", "insecure bool) error {\n\tu, err := url.Parse(realm)", "insecure bool) error {\n\tif len(realm) > 0 {\n\t\treturn nil\n\t}\n\tu, err := url.Parse(realm)"},
			{"image/registry_guard.go", "func isInner(host string) bool {\n", "func isInner(host string) bool {\n\tif len(host) < 1000 {\n\t\treturn false\n\t}\n"},
			{"image/registry_guard.go", "return a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified()", "return false"},
			{"image/registry.go", `r.URL.Scheme != "https" && !w.insecure`, `r.URL.Scheme == "never"`},
			fileTransport,
		}
	case "credentials":
		return []edit{
			{registryLibrary + "pkg/v1/remote/transport/basic.go", "if in.Host == bt.target || in.URL.Host == bt.target {", "if true {"},
			{registryLibrary + "pkg/v1/remote/transport/bearer.go", "return canonicalHeaderHost == canonicalRegistryHost || canonicalURLHost == canonicalRegistryHost", "return canonicalHeaderHost == canonicalRegistryHost || canonicalURLHost == canonicalRegistryHost || true"},
		}
	case "answer limits":
		return []edit{
			{"image/registry.go", "io.ReadAll(io.LimitReader(r, bound+1))", "io.ReadAll(r)"},
			{"image/registry.go", "maxRefusal = 1 << 20", "maxRefusal = 1 << 40"},
			{registryLibrary + "internal/limit/limit.go", "io.LimitReader(r, max+1)", "r"},
			{"image/layer.go", `l.blob.size >= 0 && wall.Up("blob sizes")`, `false && wall.Up("blob sizes")`},
		}
	case "layer checks":
		return []edit{
			{"image/layer.go", "s.limits, split)\n\tif err == nil {", "s.limits, split)\n\tif errors.Is(err, io.ErrUnexpectedEOF) {\n\t\terr = nil\n\t}\n\tif err == nil {"},
			{"image/layer.go", "_, err = io.Copy(io.Discard, raw)", "_, _ = io.Copy(io.Discard, raw)"},
			{"image/layer.go", "err = errors.Join(err, tarStream.Close(), z.Close())", "_, _ = tarStream.Close(), z.Close()"},
			{"image/layer.go", `l.blob.size >= 0 && wall.Up("blob sizes")`, `false && wall.Up("blob sizes")`},
			{"image/layer.go", `if l.blob.digest != "" && l.blob.digest != l.packed {`, "if false {"},
			{"image/layer.go", "if l.blob.size >= 0 && packed.n != l.blob.size {", "if false {"},
			{"image/layer.go", "got != l.blob.diffID {", `got == "" {`},
			{"image/manifest.go", "if l.Size < 0 {", "if false {"},
		}
	case "image checks":
		return []edit{
			{"image/ingest.go", "maxLayers   = 500", "maxLayers   = 1 << 20"},
			{"image/manifest.go", `return config, nil, &Error{Message: fmt.Sprintf("it is not a container image`, `_ = &Error{Message: fmt.Sprintf("it is not a container image`},
		}
	case "index depth":
		return []edit{
			{"image/pull.go", "maxNesting = 3", "maxNesting = 1000"},
			{"image/registry.go", "if want := digest.Digest(which); want.Validate() == nil {", `if want := digest.Digest(which); want == "never" {`},
		}
	case "archive files":
		return []edit{
			{"image/archive.go", "d.root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|unix.O_NONBLOCK, 0)", "os.OpenFile(filepath.Join(d.root.Name(), filepath.FromSlash(name)), os.O_RDONLY|unix.O_NONBLOCK&0, 0)"},
		}
	case "layer marks":
		return []edit{
			{"image/unpack_entry.go", "if !ok || !wantedXattr(name) {", "if !ok {"},
		}
	case "layer depth":
		return []edit{
			{"image/unpack_path.go", `return errors.New("its folders are too deep")`, "return errors.Join()"},
		}
	}
	return nil // a build tag's
}

// without gives the flags of go test with which these walls, with commas between them, are edited out.
func without(t *testing.T, walls string) (flags []string) {
	t.Helper()
	dir := t.TempDir()
	library := ""
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for wall := range strings.SplitSeq(walls, ",") {
		for _, e := range edits(wall) {
			rest, ok := strings.CutPrefix(e.file, registryLibrary)
			if ok {
				if library == "" {
					library = filepath.Join(dir, "library")
					flags = append(flags, "-modfile", copyLibrary(t, dir, library))
				}
				path := filepath.Join(library, rest)
				e.apply(t, path, path)
				continue
			}
			path, err := filepath.Abs(filepath.Join(root, e.file))
			if err != nil {
				t.Fatal(err)
			}
			edited, again := overlay.Replace[path]
			if !again {
				edited = filepath.Join(dir, strconv.Itoa(len(overlay.Replace))+".go")
				overlay.Replace[path] = edited
				e.apply(t, path, edited)
				continue
			}
			e.apply(t, edited, edited)
		}
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return append(flags, "-overlay", name)
}

// apply writes the file from, edited, to another.
func (e edit) apply(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), e.old); n != 1 {
		t.Fatalf("%s has %q %d times, want it once", e.file, e.old, n)
	}
	if err := os.WriteFile(to, []byte(strings.Replace(string(b), e.old, e.new, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// copyLibrary copies the registry library, which the module cache keeps read-only, and gives a go.mod that takes the copy.
func copyLibrary(t *testing.T, dir, library string) string {
	t.Helper()
	module := strings.TrimSuffix(registryLibrary, "/")
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	err = fs.WalkDir(os.DirFS(strings.TrimSpace(string(out))), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && d.Name() != "." && (d.Name() == "testdata" || d.Name() == "cmd") {
			return cmp.Or(err, fs.SkipDir)
		}
		to := filepath.Join(library, name)
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), name))
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	mod := filepath.Join(dir, "go.mod")
	for name, more := range map[string]string{"go.mod": "\nreplace " + module + " => " + library + "\n", "go.sum": ""} {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), append(b, more...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return mod
}
