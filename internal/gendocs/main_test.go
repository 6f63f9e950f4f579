package main

import (
	"fmt"
	"os/exec"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// grammar has one of each kind that whisk's command line has.
type grammar struct {
	Version bool `help:"Show the version."`
	Secret  bool `hidden:""`
	Run     struct {
		Pull   string   `enum:"always,missing,never" default:"missing" help:"When to pull: it's up to you."`
		Env    []string `short:"e" help:"KEY=VALUE."`
		Init   bool     `negatable:"" default:"true" help:"Be process 1, 100% of the time."`
		Detach bool     `short:"d" help:"Return at once."`
		Image  string   `arg:"" help:"The image."`
	} `cmd:"" help:"Run a command in a new sandbox."`
	Volume struct {
		List   list `cmd:"" name:"list" aliases:"ls" help:"List volumes."`
		Remove struct {
			Name string `arg:""`
		} `cmd:"" name:"rm" help:"Remove volumes."`
	} `cmd:"" help:"Keep volumes."`
	Keeper struct{} `cmd:"" hidden:""`
}

type list struct{}

// Help implements kong.HelpProvider.
func (list) Help() string { return "'quoted' and \\backslash\n.dot\n" }

func sample(t *testing.T) *kong.Application {
	t.Helper()
	k, err := kong.New(&grammar{}, kong.Name("whisk"), kong.Description("Run apps."))
	if err != nil {
		t.Fatal(err)
	}
	return k.Model
}

func TestBashCompletes(t *testing.T) {
	script := bash(commands(sample(t).Node))
	for _, c := range []struct{ line, want string }{
		{"whisk ", "--help --version -h run volume"},
		{"whisk r", "run"},
		{"whisk --version v", "volume"},
		{"whisk run --d", "--detach"},
		{"whisk run --e", "--env"},
		{"whisk run --no", "--no-init"},
		{"whisk run --pull ", "always missing never"},
		{"whisk run --pull n", "never"},
		{"whisk run -e A=1 --pu", "--pull"},
		{"whisk run volume --ver", "--version"}, // "volume" is an image here
		{"whisk run volume --pu", "--pull"},
		{"whisk volume ", "--help --version -h list ls rm"},
		{"whisk volume r", "rm"},
		{"whisk volume rm --pu", ""},
		{"whisk keep", ""},
		{"whisk --sec", ""},
	} {
		words := strings.Split(c.line, " ")
		var quoted []string
		for _, w := range words {
			quoted = append(quoted, quote(w))
		}
		test := fmt.Sprintf("%s\nCOMP_WORDS=(%s); COMP_CWORD=%d; _whisk; printf '%%s\\n' \"${COMPREPLY[@]}\"",
			script, strings.Join(quoted, " "), len(words)-1)
		out, err := exec.CommandContext(t.Context(), "bash", "--norc", "-u", "-c", test).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", c.line, err, out)
		}
		got := strings.Fields(string(out))
		sort.Strings(got)
		if want := strings.Fields(c.want); len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %q, want %q", c.line, got, want)
		}
	}
}

func TestOtherShells(t *testing.T) {
	root := commands(sample(t).Node)
	for name, c := range map[string]struct {
		script string
		want   []string
	}{
		"zsh": {zsh(root), []string{
			"#compdef whisk\n", "commands+=('run:Run a command in a new sandbox')", `flags+=('--pull:When to pull\: it'\''s up to you')`,
			"(' run --pull') compadd -- 'always' 'missing' 'never'; return ;;", "flags+=('--no-init:do not\\: Be process 1, 100% of the time')",
		}},
		"fish": {fish(root), []string{
			"complete -c whisk -n '__whisk_at '\\'' volume'\\''' -f -a 'rm' -d 'Remove volumes'",
			"-l pull -x -a 'always missing never'", "-l env -s e -r", "-l detach -s d -d",
		}},
	} {
		for _, want := range c.want {
			if !strings.Contains(c.script, want) {
				t.Errorf("%s lacks %q", name, want)
			}
		}
		for _, hidden := range []string{"keeper", "secret"} {
			if strings.Contains(c.script, hidden) {
				t.Errorf("%s shows %q, which is hidden", name, hidden)
			}
		}
		if t.Failed() {
			t.Log(c.script)
		}
	}
}

func TestManPageCanBeMadeTwice(t *testing.T) {
	day := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	first := manPage(sample(t), day)
	if second := manPage(sample(t), day); first != second {
		t.Errorf("two pages differ:\n%s\n%s", first, second)
	}
	for _, want := range []string{
		".TH WHISK 1 2026-03-01 ", "\nwhisk \\- Run apps\n", ".SS whisk run [FLAGS] IMAGE\nRun a command in a new sandbox.\n",
		"\\fB\\-e\\fR, \\fB\\-\\-env\\fR \\fIENV,...\\fR\nKEY=VALUE.\n", "100% of the time", ".SS whisk volume list",
		".nf\n\\&'quoted' and \\ebackslash\n\\&.dot\n.fi\n", ".SH EXIT STATUS",
	} {
		if !strings.Contains(first, want) {
			t.Errorf("page lacks %q\n%s", want, first)
		}
	}
	if strings.Contains(first, "secret") || strings.Contains(first, "keeper") {
		t.Errorf("page shows what is hidden\n%s", first)
	}
}

// What a release carries is made from the real command line: an entry that no shell can read is found here.
func TestRealCommandLine(t *testing.T) {
	dir := t.TempDir()
	if err := run(dir, "2026-03-01T00:00:00Z"); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "bash", "-n", dir+"/completions/whisk.bash").CombinedOutput(); err != nil {
		t.Errorf("bash cannot read its script: %v\n%s", err, out)
	}
	if err := run(dir, "yesterday"); err == nil {
		t.Error("date that is none: got nil, want an error")
	}
}
