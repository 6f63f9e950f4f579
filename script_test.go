package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// commands are what scripts may say beyond testscript's own words:
//
//	whisk ARG...                 runs whisk; with ! in front it must fail
//	exits N CMD ARG...           runs a program that must exit with N
//	refused N REGEXP CMD ARG...  the same, and it must say why: nothing on stdout, on stderr, after what pull
//	                             shows of its progress, one line "whisk: …" that
//	                             REGEXP matches, then at most one line "hint: …"; and nothing may be left running
//	says-no N REGEXP CMD ARG...  the same while other things of the script's run on
//	images NAME[:TAG]...         loads fixture images into the store
//	registry start VAR [USER PASSWORD]   starts a registry; VAR is its address
//	registry push VAR NAME:TAG [AS]      puts a fixture image there
//	registry stop VAR
//	port VAR...                  puts a free TCP port of 127.0.0.1 in each
//	listen VAR                   the same, and keeps it taken until the script ends
//	keep VAR                     puts the last command's stdout, trimmed, in VAR
//	eventually CMD ARG...        runs a program until it succeeds
//	keeper VAR                   puts the process ids of the script's keepers in VAR, separated by blanks
//	attack NAME WALL CMD ARG...  runs an attack, a program that succeeds if the attack did: first against whisk as it is,
//	                             where it must fail, then against one without that wall (internal/wall), where it
//	                             must succeed, or it would prove nothing
//	confined NAME WALL START OTHERWISE CMD ARG...  the same for a wall that no whisk can leave out: started by START, as in
//	                             a sandbox, CMD must fail, and by OTHERWISE, env if by itself, it must succeed; both are
//	                             split at blanks
//	closes NAME N REGEXP LACKING -- CMD ARG...  what whisk does not start without: LACKING -- CMD, where LACKING runs a
//	                             program and takes from it what it needs, is refused, but for what may run beside; CMD succeeds
//	degrades NAME REGEXP CMD ARG...      what whisk goes on without, and says so: on stdout or stderr, by REGEXP
//	nothing-left                 no process, mount or runtime file of whisk's remains
var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"whisk":        whisk,
	"exits":        exits,
	"refused":      refused,
	"says-no":      saysNo,
	"images":       images,
	"registry":     registry,
	"port":         port,
	"listen":       listen,
	"keep":         keep,
	"eventually":   eventually,
	"keeper":       keeper,
	"attack":       tried("attack", attack),
	"confined":     tried("confined", confined),
	"closes":       tried("closes", closes),
	"degrades":     tried("degrades", degrades),
	"nothing-left": nothingLeft,
}

// condition knows what a line may ask for in brackets, beyond testscript's own words: [delegated], that the login has a part
// of the unified cgroup tree for itself, cgroups(7).
func condition(name string) (bool, error) {
	if name != "delegated" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	uid := os.Getuid()
	return unix.Access(fmt.Sprintf("/sys/fs/cgroup/user.slice/user-%d.slice/user@%d.service/cgroup.procs", uid, uid), unix.W_OK) == nil, nil
}

func need(ts *testscript.TestScript, neg bool, args []string, least int, usage string) {
	if neg || len(args) < least {
		ts.Fatalf("usage: %s", usage)
	}
}

func whisk(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("whisk", args...)
	switch {
	case err != nil && !neg:
		ts.Fatalf("whisk %s: %v", strings.Join(args, " "), err)
	case err == nil && neg:
		ts.Fatalf("whisk %s: unexpected success", strings.Join(args, " "))
	}
}

// code runs a program and returns its exit code.
func code(ts *testscript.TestScript, argv []string) int {
	err := ts.Exec(argv[0], argv[1:]...)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	ts.Fatalf("%s: %v", argv[0], err)
	return 0
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "exits N CMD ARG...")
	if got := strconv.Itoa(code(ts, args[1:])); got != args[0] {
		ts.Fatalf("%s: exit code %s, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}

// progress is what pull and load tell of before they fail.
var progress = regexp.MustCompile(`(?m)^(whisk: pulling [^" ]+|[0-9a-f]{12}: .*)\n`)

func refused(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3, "refused N REGEXP CMD ARG...")
	saysNo(ts, neg, args)
	nothingLeft(ts, false, nil)
}

func saysNo(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3, "says-no N REGEXP CMD ARG...")
	exits(ts, false, append([]string{args[0]}, args[2:]...))
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("stdout: %q, want nothing", out)
	}
	lines := strings.Split(strings.TrimSuffix(progress.ReplaceAllString(ts.ReadFile("stderr"), ""), "\n"), "\n")
	if !strings.HasPrefix(lines[0], "whisk: ") || len(lines) > 2 || len(lines) == 2 && !strings.HasPrefix(lines[1], "hint: ") {
		ts.Fatalf("stderr: %q, want one line that begins with whisk: and at most one with hint:", lines)
	}
	if ok, err := regexp.MatchString(args[1], lines[0]); err != nil || !ok {
		ts.Fatalf("stderr: %q, want %q (%v)", lines[0], args[1], err)
	}
}

func images(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "images NAME[:TAG]...")
	for _, name := range args {
		if !strings.Contains(name, ":") {
			name += ":latest"
		}
		if err := ts.Exec("whisk", "load", "-i", os.Getenv(envImages), "--ref", "docker.io/library/"+name); err != nil {
			ts.Fatalf("loading %s: %v", name, err)
		}
	}
}

func registry(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "registry start VAR [USER PASSWORD] | registry push VAR NAME:TAG [AS] | registry stop VAR")
	script, err := filepath.Abs("testdata/registry/registry")
	ts.Check(err)
	action, name, rest := args[0], args[1], args[2:]
	dir := ts.MkAbs(filepath.Join(ts.Getenv("WORK"), ".registry", name))
	argv := []string{action, dir}
	switch action {
	case "push":
		argv = append(argv, os.Getenv(envImages), "docker.io/library/"+rest[0])
		rest = rest[1:]
	case "start":
		ts.Defer(func() { _ = exec.Command(script, "stop", dir).Run() })
	}
	if err := ts.Exec(script, append(argv, rest...)...); err != nil {
		ts.Fatalf("registry %s: %v", action, err)
	}
	if action == "start" {
		ts.Setenv(name, strings.TrimSpace(ts.ReadFile("stdout")))
	}
}

func port(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "port VAR...")
	for _, name := range args {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		defer l.Close() // all at once at the end, so that they differ
		ts.Setenv(name, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
}

func listen(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "listen VAR")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv(args[0], strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}

func keep(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "keep VAR")
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

func eventually(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "eventually CMD ARG...")
	var err error
	for end := time.Now().Add(settle); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = ts.Exec(args[0], args[1:]...); err == nil {
			return
		}
	}
	ts.Fatalf("%s: %v, for %v", strings.Join(args, " "), err, settle)
}

func keeper(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "keeper VAR")
	var pids []string
	for _, pid := range ts.Value(watchKey{}).(*watch).keepers() {
		pids = append(pids, strconv.Itoa(pid))
	}
	if len(pids) == 0 {
		ts.Fatalf("no keeper runs")
	}
	ts.Setenv(args[0], strings.Join(pids, " "))
}

// keepers are the script's processes that go by that name.
func (w *watch) keepers() []int {
	var pids []int
	for _, pid := range w.processes() {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && bytes.HasPrefix(cmdline, []byte("whisk-keeper\x00")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func nothingLeft(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 0, "nothing-left")
	if left := ts.Value(watchKey{}).(*watch).settle(context.Background(), true); len(left) > 0 {
		ts.Fatalf("left behind:\n\t%s", strings.Join(left, "\n\t"))
	}
}
