package cli

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/whisk-sandbox/whisk/config"
)

// BenchmarkParse is part of the time of every start of a sandbox: some tens of microseconds are what it may cost.
func BenchmarkParse(b *testing.B) {
	args := []string{"run", "--rm", "-it", "-p", "8080:80", "-v", ".:/src", "busybox", "true"}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := parse(args, settings(&config.User{})); err != nil {
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
		_, help, err := parse(append(strings.Fields(path), "--help"), settings(&config.User{}))
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
	for _, path := range []string{"ps", "images", "volume ls", "port", "network ls", "network inspect"} {
		leaves(t, func(p string, node *kong.Node) {
			flags := flagsOf(node)
			if p == path && (flags["--json"] == nil || flags["--format"] == nil) {
				t.Errorf("%s has no --json or no --format", p)
			}
		})
	}
}

// TestThinModelReadsTheSame holds parseThin against parseWhole, flag by flag.
func TestThinModelReadsTheSame(t *testing.T) {
	leaves(t, func(path string, node *kong.Node) {
		if strings.Contains(path, " ") {
			return // subcommands are always read by the whole model
		}
		i := slices.IndexFunc(commands(), func(e entry) bool { return e.name == path })
		e := commands()[i : i+1]
		for _, f := range node.Flags {
			forms := []string{"--" + f.Name}
			if f.Short != 0 {
				forms = append(forms, "-"+string(f.Short))
			}
			for _, form := range forms {
				args := []string{form}
				if !f.IsBool() {
					value := "7"
					if f.Enum != "" {
						value, _, _ = strings.Cut(f.Enum, ",")
					}
					args = append(args, value)
				}
				for _, p := range node.Positional {
					if p.Tag.Required || !p.Passthrough {
						args = append(args, "word")
					}
				}
				thin, ok := parseThin(e[0], args, settings(&config.User{}))
				whole, _, err := parseWhole(e, append([]string{path}, args...), settings(&config.User{}))
				if err != nil || !ok {
					t.Errorf("%s %v: thin model: %v, whole model: %v", path, args, ok, err)
					continue
				}
				if !reflect.DeepEqual(thin, whole) {
					t.Errorf("%s %v: thin model: %+v, whole model: %+v", path, args, thin, whole)
				}
			}
		}
	})
}

// update writes docs/commands.md anew: go test ./cli -run Reference -update.
var update = flag.Bool("update", false, "write docs/commands.md and golden files anew")

// TestReferenceIsTheModel keeps docs/commands.md with the commands: it is what their help says.
func TestReferenceIsTheModel(t *testing.T) {
	const file = "../docs/commands.md"
	want := reference(t)
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the commands' help says: go test ./cli -run Reference -update", file)
	}
	leaves(t, func(path string, node *kong.Node) {
		if !strings.Contains(want, "\n## whisk "+path+"\n") || !strings.Contains(want, "\n    whisk "+path) {
			t.Errorf("%s: no section, or no example", path)
		}
		for _, f := range node.Flags {
			if !strings.Contains(want, "--"+f.Name) {
				t.Errorf("%s: --%s is not told of", path, f.Name)
			}
		}
	})
}

// reference is docs/commands.md.
func reference(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(referenceHead)
	leaves(t, func(path string, node *kong.Node) {
		fmt.Fprintf(&b, "\n## whisk %s\n\n%s\n\n    %s\n", path, node.Help, synopsis(node))
		for _, g := range flagGroups(node) {
			heading := "Flag"
			if g.name != "Flags" {
				heading = g.name
			}
			fmt.Fprintf(&b, "\n| %s | |\n|---|---|\n", heading)
			for _, f := range g.flags {
				form := "`" + strings.ReplaceAll(strings.TrimSpace(flagForm(f)), "|", "\\|") + "`"
				fmt.Fprintf(&b, "| %s | %s |\n", strings.Replace(form, ", ", "`, `", 1), strings.ReplaceAll(flagHelp(f), "|", "\\|"))
			}
		}
		if len(node.Positional) > 0 {
			b.WriteByte('\n')
		}
		for _, p := range node.Positional {
			fmt.Fprintf(&b, "`%s`: %s\n", p.Tag.PlaceHolder, p.Help)
		}
		if node.Detail == "" {
			return
		}
		b.WriteByte('\n')
		for line := range strings.Lines(node.Detail) {
			if strings.HasPrefix(line, "  ") {
				line = "  " + line
			}
			if strings.HasPrefix(line, "Example") {
				line += "\n"
			}
			b.WriteString(line)
		}
		b.WriteByte('\n')
	})
	return b.String()
}

const referenceHead = `# Commands

Every command of whisk, its flags and an example. The words, flags and their syntax are those of docker and podman
wherever these have them. This page is made from the commands' own help (` + "`whisk COMMAND --help`" + `).

**Selecting sandboxes.** A sandbox is selected by its id, any unique beginning of the id, its name, or as an app:
` + "`web`" + ` means the app of the project in the working directory first, ` + "`shop/web`" + ` the app of any project.

**Flags** may stand anywhere before or between arguments; short ones may be joined (` + "`-it`" + `), values may follow a
blank or an equals sign, and ` + "`--flag=false`" + ` switches a flag off. For ` + "`run`" + ` and ` + "`exec`" + ` all that follows the image or
sandbox belongs to the command in it; a ` + "`--`" + ` right behind it is left away.

**Output.** Standard output carries data only: ids, tables, JSON, apps' output. Progress, warnings and errors go to
standard error behind ` + "`whisk:`" + `, an error that you can mend with a line ` + "`hint:`" + ` below. ` + "`NO_COLOR`" + ` is respected.

**Exit status.** The app's own; 125 when whisk failed, 126 when the command could not be executed, 127 when it was
not found, 128+n when signal n ended it.

**Signals.** ` + "`run`" + ` in the foreground passes signals on to the app. A command in the foreground that is killed takes
its app along.
`
