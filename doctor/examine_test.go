package doctor

import (
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/whisk-sandbox/whisk/userns"
)

var update = flag.Bool("update", false, "write what is found into testdata")

// machine reads one that is written down: machine.json, and the files below root/.
func machine(t *testing.T, a *txtar.Archive) *Machine {
	t.Helper()
	m, files := &Machine{}, fstest.MapFS{}
	for _, f := range a.Files {
		if name, ok := strings.CutPrefix(f.Name, "root/"); ok {
			files[name] = &fstest.MapFile{Data: f.Data, Mode: 0o644}
			if strings.HasSuffix(name, "/bus") {
				files[name].Mode = fs.ModeSocket | 0o600
			}
		}
		if f.Name == "machine.json" {
			dec := json.NewDecoder(strings.NewReader(string(f.Data)))
			dec.DisallowUnknownFields()
			if err := dec.Decode(m); err != nil {
				t.Fatalf("machine.json: %v", err)
			}
		}
	}
	m.Files = files
	if m.Refused != nil {
		m.Refused.Read(files)
	}
	return m
}

// Each machine in testdata has the table and the script that are made for it.
func TestMachines(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no machines in testdata: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			r := Examine(machine(t, a))
			got := map[string]string{"want.txt": r.Text(func(s string) string { return s }, false), "want.sh": strings.TrimPrefix(r.Script(), functions)}
			if *update {
				kept := a.Files[:0]
				for _, f := range a.Files {
					if !strings.HasPrefix(f.Name, "want.") {
						kept = append(kept, f)
					}
				}
				a.Files = append(kept, txtar.File{Name: "want.txt", Data: []byte(got["want.txt"])}, txtar.File{Name: "want.sh", Data: []byte(got["want.sh"])})
				if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			for _, f := range a.Files {
				if text, ok := got[f.Name]; ok {
					if text != string(f.Data) {
						t.Errorf("%s: got\n%s\nwant\n%s\n(go test ./doctor -update writes it)", f.Name, text, f.Data)
					}
					delete(got, f.Name)
				}
			}
			for name := range got {
				t.Errorf("%s has no %s: go test ./doctor -update", path, name)
			}
		})
	}
}

// What is first is what is to be mended first.
func TestFirstFinding(t *testing.T) {
	for name, want := range map[string]struct {
		level Level
		cause string
	}{
		"debian-13":             {Note, "low-ports"},
		"ubuntu-24.04":          {Problem, "apparmor"},
		"apparmor-profile":      {Problem, "apparmor"},
		"arch":                  {Problem, "clone-off"},
		"opensuse":              {Note, "helper-missing"},
		"alpine":                {Note, "no-range"},
		"no-sub-ids":            {Note, "no-range"},
		"few-sub-ids":           {Problem, "range-too-small"},
		"sub-id-clash":          {Note, "clash"},
		"no-newuidmap":          {Note, "helper-missing"},
		"newuidmap-no-setuid":   {Problem, "helper-powerless"},
		"nosuid":                {Problem, "helper-powerless"},
		"userns-clone-0":        {Problem, "clone-off"},
		"max-user-namespaces-0": {Problem, "max-zero"},
		"no-nf-tables":          {Note, "nf-tables"},
		"no-tproxy":             {Note, "nf-tables"},
		"nfs-home":              {Problem, "file-system"},
		"in-docker":             {Problem, "seccomp"},
		"old-kernel":            {Problem, "kernel"},
		"damaged-store":         {Problem, "damaged"},
		"helper-refused":        {Problem, "helper-refused"},
		"masked-proc":           {Problem, "proc"},
		"no-unshare":            {Problem, "namespaces"},
		"later-store":           {Problem, "not-usable"},
		"no-walls":              {Problem, "no-seccomp"},
		"ptrace-scope":          {Note, "no-range"},
		"no-user-bus":           {Note, "low-ports"},
		"directory-silent":      {Note, "directory-silent"},
		"directory-no-range":    {Note, "directory-no-range"},
		"directory-small":       {Problem, "range-too-small"},
		"not-writable":          {Problem, "not-writable"},
		"full-disk":             {Problem, "full"},
		"damaged-images":        {Note, "image-damaged"},
		"landlock-refused":      {Problem, "landlock-refused"},
		"chroot":                {Problem, "chroot"},
		"exhausted":             {Problem, "exhausted"},
		"ecryptfs-home":         {Problem, "file-system"},
		"one-helper":            {Note, "helper-missing"},
	} {
		a, err := txtar.ParseFile("testdata/" + name + ".txtar")
		if err != nil {
			t.Fatal(err)
		}
		r := Examine(machine(t, a))
		if f := r.Findings[0]; f.Level != want.level || f.Cause != want.cause {
			t.Errorf("%s: %s %s (%s: %s) is first, want %s %s", name, f.Level, f.Cause, f.Check, f.Found, want.level, want.cause)
		}
		if r.OK != (want.level != Problem) {
			t.Errorf("%s: OK = %v with a %s", name, r.OK, want.level)
		}
	}
}

// The script's own functions change nothing the second time, and every script is one that sh(1) can read.
func TestScriptIsIdempotent(t *testing.T) {
	dir := t.TempDir()
	list := filepath.Join(dir, "deep", "list")
	try := func(text string) string {
		t.Helper()
		out, err := exec.Command("/bin/sh", "-c", text).CombinedOutput()
		if err != nil {
			t.Fatalf("%s\n%v: %s", text, err, out)
		}
		return string(out)
	}
	call := functions + "\nline " + list + " 'ann:100000:65536'\nline " + list + " '-x = 0 1'\n"
	try(call)
	try(call)
	if got, err := os.ReadFile(list); err != nil || string(got) != "ann:100000:65536\n-x = 0 1\n" {
		t.Errorf("after two runs: %q, %v", got, err)
	}
	if err := os.WriteFile(list, []byte("bob:1:2"), 0o600); err != nil { // no end of line
		t.Fatal(err)
	}
	try(call)
	if got, err := os.ReadFile(list); err != nil || string(got) != "bob:1:2\nann:100000:65536\n-x = 0 1\n" {
		t.Errorf("after a file without an end of line: %q, %v", got, err)
	}
	err := fs.WalkDir(os.DirFS("testdata"), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".txtar") {
			return err
		}
		a, err := txtar.ParseFile(filepath.Join("testdata", path))
		if err != nil {
			return err
		}
		script := filepath.Join(dir, "script")
		if err := os.WriteFile(script, []byte(Examine(machine(t, a)).Script()), 0o600); err != nil {
			return err
		}
		if out, err := exec.Command("/bin/sh", "-n", script).CombinedOutput(); err != nil {
			t.Errorf("%s: sh -n: %v: %s", path, err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A mend that fails keeps no other from being tried, and is named at the end.
func TestScriptTriesEachMend(t *testing.T) {
	dir := t.TempDir()
	r := Report{Findings: []Finding{
		{Check: "first", repair: repair{lines: []string{"false", "touch " + dir + "/wrong"}}},
		{Check: "second one", repair: repair{lines: []string{"touch " + dir + "/done"}}},
		{Check: "third", repair: repair{sysctls: [][2]string{{"no.such", "1"}}, lines: []string{"touch " + dir + "/after"}}},
	}}
	script := strings.ReplaceAll(r.Script(), "/etc/", dir+"/etc/")
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || !strings.HasSuffix(string(out), "\nnot mended: first, third\n") {
		t.Errorf("ended with %v and said\n%s\nwanted exit code 1 and both names", err, out)
	}
	for name, want := range map[string]bool{"wrong": false, "done": true, "after": true} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: %v, wanted it there: %v", name, err, want)
		}
	}
}

// Names and paths come from the environment and from directory services, and it is root who runs the script.
func TestScriptObeysNoName(t *testing.T) {
	dir := t.TempDir()
	bin, marker := filepath.Join(dir, "bin"), filepath.Join(dir, "obeyed")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	// Nothing that could change this machine, and all that the script's functions use.
	for _, name := range []string{"touch", "cat", "mkdir", "grep", "dirname", "tail"} {
		path, err := exec.LookPath(name)
		if err == nil {
			err = os.Symlink(path, filepath.Join(bin, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, evil := range []string{
		"x\ntouch " + marker + "\n",
		"x'\ntouch " + marker + "\n'",
		"$(touch " + marker + ")`touch " + marker + "`;touch " + marker + ";",
		"x\nWHISK\ntouch " + marker + "\n",
	} {
		paths, err := filepath.Glob("testdata/*.txtar")
		if err != nil || len(paths) == 0 {
			t.Fatalf("no machines in testdata: %v", err)
		}
		for _, path := range paths {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			m := machine(t, a)
			m.User.Name, m.Exe, m.Store.At, m.Data = evil, "/"+evil, "/"+evil, "/"+evil
			for _, h := range []*userns.Helper{&m.NewUIDMap, &m.NewGIDMap} {
				if h.Path != "" {
					h.Path += evil
				}
			}
			script := strings.ReplaceAll(Examine(m).Script(), "/etc/", dir+"/etc/")
			script = strings.NewReplacer("set -e\n", "\n", "exit 1", "true").Replace(script) // on, past what fails
			cmd := exec.Command("/bin/sh")
			cmd.Env, cmd.Stdin = []string{"PATH=" + bin}, strings.NewReader(script)
			_ = cmd.Run() // most of what it mends with is not there
			if _, err := os.Stat(marker); err == nil {
				t.Fatalf("%s with the name %q: the script obeyed it:\n%s", path, evil, script)
			}
		}
	}
}

func TestColourIsOnTheMarksOnly(t *testing.T) {
	r := Report{Findings: []Finding{{Check: "x", Level: Problem, Found: "a\x1bb", Mend: "c\x1bd"}}}
	got := r.Text(func(s string) string { return strings.ReplaceAll(s, "\x1b", "?") }, true)
	if want := "\x1b[31mproblem\x1b[0m  x  a?b\n"; !strings.HasPrefix(got, want) || strings.Count(got, "\x1b") != 2 {
		t.Errorf("Text = %q, want it to begin with %q", got, want)
	}
}

// Every cause that a probe names is that of a machine in testdata, whose table and script can be looked at.
func TestEachCauseHasAMachine(t *testing.T) {
	seen := map[string]bool{}
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no machines in testdata: %v", err)
	}
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range Examine(machine(t, a)).Findings {
			seen[f.Cause] = true
		}
	}
	causes := causesIn(t, ".", "../userns", "../launcher/cgroup")
	if len(causes) < 40 {
		t.Fatalf("%d causes found in the code: %q", len(causes), causes)
	}
	for _, c := range causes {
		if !seen[c] {
			t.Errorf("no machine in testdata has the cause %q", c)
		}
	}
}

// causesIn lists the texts that the code in these folders gives as a cause: f.Cause = "x", Cause: "x" and constants of the type
// Cause.
func causesIn(t *testing.T, dirs ...string) []string {
	t.Helper()
	var causes []string
	text := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			causes = append(causes, strings.Trim(lit.Value, `"`))
		}
	}
	named := func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.SelectorExpr:
			return e.Sel.Name == "Cause"
		case *ast.Ident:
			return e.Name == "Cause"
		}
		return false
	}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(parsed, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.AssignStmt:
					for i, l := range n.Lhs {
						if named(l) && len(n.Rhs) == len(n.Lhs) {
							text(n.Rhs[i])
						}
					}
				case *ast.KeyValueExpr:
					if named(n.Key) {
						text(n.Value)
					}
				case *ast.ValueSpec:
					if n.Type != nil && named(n.Type) {
						for _, v := range n.Values {
							text(v)
						}
					}
				}
				return true
			})
		}
	}
	slices.Sort(causes)
	return slices.Compact(causes)
}
