package attacks

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

var update = flag.Bool("update", false, "write the list into docs/security.md")

const (
	root  = "../.."
	page  = root + "/docs/security.md"
	begin = "<!-- attacks: written by go test ./internal/attacks -update -->\n"
	end   = "<!-- end of attacks -->\n"
)

// attack is one row of the list.
type attack struct {
	name, wall string
	verdict    Verdict
	place      string
}

func TestListIsCurrent(t *testing.T) {
	list, err := collect()
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(old), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the list: %q and %q", page, begin, end)
	}
	current := head + begin + table(list) + end + tail
	if *update {
		if err := os.WriteFile(page, []byte(current), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if current != string(old) {
		t.Errorf("the list of attacks in docs/security.md is not what the tests say: go test ./internal/attacks -update")
	}
}

// TestEveryAttackHasAName guards the list against two attacks that cannot be told apart.
func TestEveryAttackHasAName(t *testing.T) {
	list, err := collect()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Fatal("no attack was found")
	}
	seen := map[string]string{}
	for _, a := range list {
		if a.name == "" || a.wall == "" || a.verdict == "" {
			t.Errorf("%s: an attack %q on wall %q with verdict %q", a.place, a.name, a.wall, a.verdict)
		}
		if where, twice := seen[a.name]; twice {
			t.Errorf("%q is in %s and in %s", a.name, where, a.place)
		}
		seen[a.name] = a.place
	}
}

func TestWordsAreTestscripts(t *testing.T) {
	for line, want := range map[string]string{
		`attack 'a b' wall whisk run`:               "attack|a b|wall|whisk|run",
		`attack 'the store' 'whisk''s own files' x`: "attack|the store|whisk's own files|x",
		`  attack x y # z`:                          "attack|x|y",
	} {
		if got := strings.Join(words(line), "|"); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func table(list []attack) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d attacks, each tried on every change.\n\n| attack | verdict | held by | where |\n|---|---|---|---|\n", len(list))
	for _, a := range list {
		fmt.Fprintf(&b, "| %s | %s | %s | `%s` |\n", strings.ReplaceAll(a.name, "|", `\|`), a.verdict, strings.ReplaceAll(a.wall, "|", `\|`), a.place)
	}
	return b.String()
}

func collect() ([]attack, error) {
	var list []attack
	scripts, err := filepath.Glob(root + "/testdata/scripts/attack-*.txtar")
	if err != nil {
		return nil, err
	}
	oneID, err := filepath.Glob(root + "/testdata/scripts/one-id/attack-*.txtar")
	if err != nil {
		return nil, err
	}
	for _, name := range append(scripts, oneID...) {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		list = append(list, inScript(string(text), strings.TrimPrefix(name, root+"/"))...)
	}
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(text, []byte("func TestAttack")) {
			return err
		}
		more, err := inSource(text, strings.TrimPrefix(name, root+"/"))
		list = append(list, more...)
		return err
	})
	return list, err
}

// inScript finds the attacks of a script, before its files.
func inScript(text, place string) (list []attack) {
	kinds := Kinds()
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "-- ") {
			break
		}
		w := words(line)
		if len(w) > 0 && strings.HasPrefix(w[0], "[") { // where the machine lets it be tried
			w = w[1:]
		}
		if len(w) == 0 {
			continue
		}
		if kind, ok := kinds[w[0]]; ok && len(w) > kind.Args {
			list = append(list, attack{w[1], cmp.Or(kind.By, w[2]), kind.Verdict, place})
		}
	}
	return list
}

// words splits a line as testscript does: single quotes, doubled inside of them.
func words(line string) (out []string) {
	var word strings.Builder
	quoted, inWord := false, false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\'' && quoted && i+1 < len(line) && line[i+1] == '\'':
			word.WriteByte(c)
			i++
		case c == '\'':
			quoted, inWord = !quoted, true
		case !quoted && (c == ' ' || c == '\t' || c == '\n' || c == '#'):
			if inWord {
				out = append(out, word.String())
			}
			word.Reset()
			inWord = false
			if c == '#' {
				return out
			}
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		out = append(out, word.String())
	}
	return out
}

// inSource finds the tests TestAttack… of a Go file; their parts are run by name, or are the keys of a map. The wall is the
// line "Wall: …" of the test's comment; without one it is the package's own code. TestWallsAreNeeded proves those of some rooms;
// elsewhere the test does so itself, and its line "Proof: …" says where the attack succeeds.
func inSource(text []byte, place string) ([]attack, error) {
	file, err := parser.ParseFile(token.NewFileSet(), place, text, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	var list []attack
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "TestAttack") {
			continue
		}
		wall, verdict := "package "+file.Name.Name, Verdict("")
		if slices.Contains(provenRooms(), file.Name.Name) {
			verdict = Held
		}
		for line := range strings.Lines(f.Doc.Text()) {
			line = strings.TrimSuffix(strings.TrimSpace(line), ".")
			if w, ok := strings.CutPrefix(line, "Wall: "); ok {
				wall = w
			}
			if p, ok := strings.CutPrefix(line, "Proof: it "); ok && verdict == "" {
				verdict = Verdict("held; " + p)
			}
		}
		name := spaced(strings.TrimPrefix(f.Name.Name, "TestAttack"))
		var parts []attack
		ast.Inspect(f.Body, func(n ast.Node) bool {
			if loop, ok := n.(*ast.RangeStmt); ok && runs(loop.Body) {
				for _, part := range keys(loop.X) {
					parts = append(parts, attack{name + ": " + part, wall, verdict, place})
				}
			}
			if call, ok := n.(*ast.CallExpr); ok && len(call.Args) == 2 {
				sel, isSel := call.Fun.(*ast.SelectorExpr)
				lit, isLit := call.Args[0].(*ast.BasicLit)
				if isSel && isLit && sel.Sel.Name == "Run" && lit.Kind == token.STRING {
					if part, err := strconv.Unquote(lit.Value); err == nil {
						parts = append(parts, attack{name + ": " + part, wall, verdict, place})
					}
				}
			}
			return true
		})
		if len(parts) == 0 {
			parts = []attack{{name, wall, verdict, place}}
		}
		list = append(list, parts...)
	}
	return list, nil
}

// runs tells whether a loop makes a test of each case.
func runs(body ast.Node) (found bool) {
	ast.Inspect(body, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			sel, isSel := call.Fun.(*ast.SelectorExpr)
			found = found || isSel && sel.Sel.Name == "Run" && len(call.Args) == 2
		}
		return !found
	})
	return found
}

// keys are those of a map that a test's cases stand in: map[string]T{"a case": …}.
func keys(x ast.Expr) (out []string) {
	table, ok := x.(*ast.CompositeLit)
	if !ok {
		return nil
	}
	for _, e := range table.Elts {
		kv, isPair := e.(*ast.KeyValueExpr)
		if !isPair {
			continue
		}
		if lit, isLit := kv.Key.(*ast.BasicLit); isLit && lit.Kind == token.STRING {
			if key, err := strconv.Unquote(lit.Value); err == nil {
				out = append(out, key)
			}
		}
	}
	return out
}

// spaced turns PretendingToBeLoopback into "pretending to be loopback".
func spaced(camel string) string {
	var b strings.Builder
	for i, r := range camel {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
