package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
)

// said runs a command line and returns its exit code and what it wrote.
func said(t *testing.T, args ...string) (code int, out, faults string) {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_DATA_HOME", "")
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	files := make([]*os.File, 2)
	for i := range files {
		f, err := os.CreateTemp(t.TempDir(), "said")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	code = Main(t.Context(), Invocation{Version: "1.2.3", Args: args, Stdin: null, Stdout: files[0], Stderr: files[1]})
	texts := make([]string, 2)
	for i, f := range files {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = string(b)
	}
	return code, texts[0], texts[1]
}

func TestFaultsAreOneLineAndAHint(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range []struct{ in, want string }{
		{"rnu", "whisk: unknown command \"rnu\"\nhint: did you mean one of \"run\", \"rm\", \"rmi\"?\n"},
		{"zzzzzz", "whisk: unknown command \"zzzzzz\"\nhint: whisk --help\n"},
		{"--bogus", "whisk: unknown flag --bogus\nhint: whisk --help\n"},
		{"run --nmae x img", "whisk: unknown flag --nmae\nhint: did you mean \"--name\"?\n"},
		{"run -z img", "whisk: unknown flag -z\nhint: whisk run --help\n"},
		{"run", "whisk: an image is missing\nhint: whisk run --help\n"},
		{"run --memory", "whisk: --memory: a value is missing\nhint: whisk run --help\n"},
		{"run -it img", "whisk: -i and -t: standard input is not a terminal\nhint: leave out -t\n"},
		{"run --detach-keys ctrl-1 img", "whisk: --detach-keys: detach key \"ctrl-1\": want a character, or ctrl- and one of a-z @ [ \\ ] ^ _, joined by commas\n"},
		{"exec", "whisk: a sandbox is missing\nhint: whisk exec --help\n"},
		{"exec web", "whisk: a command is missing\nhint: whisk exec -it web sh\n"},
		{"exec web ls", "whisk: no sandbox \"web\"\nhint: whisk ps -a\n"},
		{"stop", "whisk: a sandbox is missing\nhint: whisk ps -a\n"},
		{"stop -t soon web", "whisk: --time: "},
		{"logs", "whisk: a sandbox is missing\nhint: whisk logs SANDBOX, or go to a folder with a whisk.toml\n"},
		{"logs --since soon x", "whisk: --since: \"soon\" is neither a time nor a length of time\nhint: --since 10m, or --since 2026-01-02T15:04:05\n"},
		{"logs --tail few x", "whisk: --tail: \"few\" is not a number of lines\nhint: --tail 100, or --tail all\n"},
		{"port", "whisk: a sandbox is missing\nhint: whisk port --help\n"},
		{"ps x", "whisk: unexpected argument x\nhint: whisk ps --help\n"},
		{"ps --format yaml", "whisk: --format must be one of \"table\",\"json\" but got \"yaml\"\nhint: whisk ps --help\n"},
		{"volume foo", "whisk: unknown command \"volume foo\"\nhint: whisk volume --help\n"},
		{"volume rm", "whisk: a volume is missing\nhint: whisk volume rm --help\n"},
		{"volume inspect none", "whisk: no volume \"none\"\nhint: whisk volume ls\n"},
		{"up", "whisk: no whisk.toml in "},
		{"stop \x1b[31mred", "whisk: no sandbox \"\\x1b[31mred\"\nhint: whisk ps -a\n"},
	} {
		t.Run(c.in, func(t *testing.T) {
			code, out, faults := said(t, strings.Fields(c.in)...)
			if code != launcher.ExitWhisk || out != "" {
				t.Errorf("exit %d and output %q, want 125 and none", code, out)
			}
			if faults != c.want && (strings.HasSuffix(c.want, "\n") || !strings.HasPrefix(faults, c.want)) {
				t.Errorf("got %q, want %q", faults, c.want)
			}
			if strings.Count(faults, "\n") > 2 || strings.ContainsAny(faults, "\x1b\r") {
				t.Errorf("more than a line and a hint, or a terminal's controls: %q", faults)
			}
		})
	}
}

func TestWhatNeedsNoSandbox(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range []struct{ in, want string }{
		{"version", "whisk 1.2.3\n"},
		{"--version", "whisk 1.2.3\n"},
		{"ps", "ID  NAME  IMAGE  STATE  AGE  IP  PORTS\n"},
		{"ps --json", "[]\n"},
		{"ps --format json", "[]\n"},
		{"ps -aq", ""},
		{"volume ls --json", "[]\n"},
		{"volume create data", "data\n"},
		{"help run", "Run a command in a new sandbox.\n"},
		{"volume", "Manage volumes.\n"},
		{"", "Run apps from container images"},
	} {
		t.Run(c.in, func(t *testing.T) {
			code, out, faults := said(t, strings.Fields(c.in)...)
			if code != 0 || faults != "" {
				t.Errorf("exit %d, %q", code, faults)
			}
			if !strings.HasPrefix(out, c.want) || c.want == "" && out != "" {
				t.Errorf("got %q, want %q", out, c.want)
			}
		})
	}
}

func TestInitWritesAProjectThatLoads(t *testing.T) {
	t.Chdir(t.TempDir())
	if code, out, faults := said(t, "init"); code != 0 || out != "" {
		t.Fatalf("exit %d, output %q, %s", code, out, faults)
	}
	if _, err := config.Load("whisk.toml", config.LoadOptions{Home: "/home/ann"}); err != nil {
		t.Error(err)
	}
	if code, _, faults := said(t, "init"); code != launcher.ExitWhisk || faults != "whisk: whisk.toml is there already\nhint: whisk init --force\n" {
		t.Errorf("exit %d, %q", code, faults)
	}
	if code, _, faults := said(t, "init", "-f"); code != 0 {
		t.Errorf("exit %d, %q", code, faults)
	}
}

func TestFaultExitCodes(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		code int
		want string
	}{
		{"an error of whisk", errors.New("no room"), 125, "whisk: no room\n"},
		{"not executable", &launcher.Error{Message: "cannot", Exit: launcher.ExitNotExecutable}, 126, "whisk: cannot\n"},
		{"not found, wrapped", fmt.Errorf("app %q: %w", "web", &launcher.Error{Message: "no sh", Hint: "ls", Exit: launcher.ExitNotFound}), 127, "whisk: app \"web\": no sh\nhint: ls\n"},
		{"control characters", &launcher.Error{Message: "a\nb\x1b]0;title\x07", Hint: "c\rd", Exit: 125}, 125, "whisk: a\\nb\\x1b]0;title\\a\nhint: c\\rd\n"},
		{"all faults of a file", config.Errors{{File: "w", Line: 1, Column: 2, Msg: "one", Source: "abc"}, {File: "w", Line: 3, Column: 1, Msg: "two", Source: "\tx"}}, 125,
			"whisk: w:1:2: one\n    abc\n     ^\nwhisk: w:3:1: two\n    \tx\n    ^\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			code := (&call{err: w}).fault(c.err)
			w.Close()
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			if code != c.code || string(b) != c.want {
				t.Errorf("got %d, %q; want %d, %q", code, b, c.code, c.want)
			}
		})
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("plain")
	f.Add("\x1b[31m\xff\u202e\u2028")
	f.Fuzz(func(t *testing.T, text string) {
		got := printable(text)
		for _, r := range got {
			if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u202e' || r == '\u2028' {
				t.Errorf("%q came out of %q", r, text)
			}
		}
	})
}

// The kernel's no is never all that is said; what is wrong with a name that was typed is not the machine's doing.
func TestNoBareRefusal(t *testing.T) {
	for message, want := range map[string]bool{
		"make namespaces: operation not permitted":                       true,
		"starting web: mount /proc: operation not permitted":             true,
		"mount overlay: invalid argument":                                true,
		"mount tmpfs on /run: permission denied":                         true,
		"change root: invalid argument":                                  true,
		"make whisk's folder: mkdir /home/a: permission denied":          true,
		"make whisk's folder: mkdir /home/a: read-only file system":      true,
		"write record: write /home/a/spec.json: no space left on device": true,
		"open whisk.toml: permission denied":                             false,
		"--ip: invalid argument":                                         false,
		"operation not permitted by policy":                              false,
	} {
		if got := isBare(message); got != want {
			t.Errorf("isBare(%q) = %v, want %v", message, got, want)
		}
	}
}
