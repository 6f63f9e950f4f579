package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// BenchmarkParse is part of the time of every start of a sandbox: some tens of microseconds are what it may cost.
func BenchmarkParse(b *testing.B) {
	args := []string{"run", "--rm", "-it", "-p", "8080:80", "-v", ".:/src", "busybox", "true"}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := parse(args); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkModel is what parsing would cost if every command's model were built.
func BenchmarkModel(b *testing.B) {
	for b.Loop() {
		if _, err := Model(); err != nil {
			b.Fatal(err)
		}
	}
}

// leaves calls f with every command that can be run, by the words that call it.
func leaves(t *testing.T, f func(path string, node *kong.Node)) {
	t.Helper()
	k, err := Model()
	if err != nil {
		t.Fatal(err)
	}
	var walk func(node *kong.Node)
	walk = func(node *kong.Node) {
		if len(node.Children) == 0 {
			f(strings.TrimPrefix(commandPath(node), "whisk "), node)
		}
		for _, child := range node.Children {
			walk(child)
		}
	}
	for _, child := range k.Model.Children {
		walk(child)
	}
}

func TestEveryCommandRunsAndHasHelp(t *testing.T) {
	leaves(t, func(path string, node *kong.Node) {
		if _, ok := node.Target.Addr().Interface().(command); !ok {
			t.Errorf("%s: is not a command", path)
		}
		_, help, err := parse(append(strings.Fields(path), "--help"))
		if err != nil {
			t.Errorf("%s --help: %v", path, err)
		}
		if !strings.Contains(help, "usage: whisk "+path) || !strings.Contains(help, "Example") {
			t.Errorf("%s --help: has no usage or no example:\n%s", path, help)
		}
		for _, f := range node.Flags {
			if f.Help == "" || !strings.HasSuffix(f.Help, ".") && !strings.HasSuffix(f.Help, "…") {
				t.Errorf("%s --%s: help %q is not a sentence", path, f.Name, f.Help)
			}
		}
		for line := range strings.Lines(help) {
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > helpWidth+2 {
				t.Errorf("%s --help: a line of %d columns: %s", path, n, line)
			}
		}
	})
}

func TestCommandsListThatPrintsJSON(t *testing.T) {
	for _, path := range []string{"ps", "images", "volume ls", "port"} {
		leaves(t, func(p string, node *kong.Node) {
			flags := flagsOf(node)
			if p == path && (flags["--json"] == nil || flags["--format"] == nil) {
				t.Errorf("%s has no --json or no --format", p)
			}
		})
	}
}

// TestReferenceIsWhole keeps docs/commands.md with the commands: every command has a section, which names its flags
// and shows an example.
func TestReferenceIsWhole(t *testing.T) {
	b, err := os.ReadFile("../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for part := range strings.SplitSeq(string(b), "\n## ") {
		head, body, _ := strings.Cut(part, "\n")
		sections[head] = body
	}
	leaves(t, func(path string, node *kong.Node) {
		body, ok := sections["whisk "+path]
		if !ok {
			t.Errorf("no section %q", "## whisk "+path)
			return
		}
		if !strings.Contains(body, "\n    whisk "+path) {
			t.Errorf("%s: no example", path)
		}
		for _, f := range node.Flags {
			want := fmt.Sprintf("`--%s", f.Name)
			if f.Short != 0 {
				want = fmt.Sprintf("`-%c`, `--%s", f.Short, f.Name)
			}
			if !strings.Contains(body, want) {
				t.Errorf("%s: %s… is not told of", path, want)
			}
		}
	})
}
