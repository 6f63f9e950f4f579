package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/whisk-sandbox/whisk/internal/attacks"
)

// tried makes a script's command of an attack: it has a name, and prints its verdict once it has come to that. try gets the
// name and what comes after it.
func tried(command string, try func(ts *testscript.TestScript, name string, args []string)) func(ts *testscript.TestScript, neg bool, args []string) {
	kind := attacks.Kinds()[command]
	return func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, kind.Args, command+" "+kind.Usage)
		try(ts, args[0], args[1:])
		by := kind.By
		if by == "" {
			by = args[1]
		}
		ts.Logf("attack %s: %s (%s)", args[0], kind.Verdict, by)
	}
}

// attack is WALL CMD ARG…
func attack(ts *testscript.TestScript, name string, args []string) {
	wall, argv := args[0], args[1:]
	if code(ts, argv) == 0 {
		ts.Fatalf("%s: the attack succeeded", name)
	}
	path := ts.Getenv("PATH")
	ts.Setenv("PATH", filepath.Dir(os.Getenv(envBreach))+":"+path)
	defer func() {
		ts.Setenv("PATH", path)
		ts.Setenv("WHISK_BREACH", "")
	}()
	// Of several walls each holds by itself.
	if all := strings.Split(wall, ","); len(all) > 1 {
		for i, alone := range all {
			ts.Setenv("WHISK_BREACH", strings.Join(slices.Delete(slices.Clone(all), i, i+1), ","))
			if code(ts, argv) == 0 {
				ts.Fatalf("%s: the attack succeeded against %q alone", name, alone)
			}
		}
	}
	ts.Setenv("WHISK_BREACH", wall)
	if broken := code(ts, argv); broken != 0 {
		ts.Fatalf("%s: the attack fails (exit code %d) without the wall %q too: it proves nothing", name, broken, wall)
	}
}

// confined is WALL START OTHERWISE CMD ARG…
func confined(ts *testscript.TestScript, name string, args []string) {
	wall, start, otherwise, argv := args[0], strings.Fields(args[1]), strings.Fields(args[2]), args[3:]
	if code(ts, append(start, "true")) != 0 {
		ts.Fatalf("%s: %q starts nothing", name, args[1])
	}
	if code(ts, append(start, argv...)) == 0 {
		ts.Fatalf("%s: the attack succeeded", name)
	}
	if free := code(ts, append(otherwise, argv...)); free != 0 {
		ts.Fatalf("%s: the attack fails (exit code %d) without the wall %q too: it proves nothing", name, free, wall)
	}
}

// closes is N REGEXP LACKING -- CMD ARG…
func closes(ts *testscript.TestScript, name string, args []string) {
	saysNo(ts, false, args)
	cut := slices.Index(args, "--")
	if cut < 0 {
		ts.Fatalf("%s: no -- before the command", name)
	}
	if whole := code(ts, args[cut+1:]); whole != 0 {
		ts.Fatalf("%s: %q does not start (exit code %d) where nothing is lacking either: it proves nothing", name, args[cut+1:], whole)
	}
}

// degrades is REGEXP CMD ARG…
func degrades(ts *testscript.TestScript, name string, args []string) {
	if got := code(ts, args[1:]); got != 0 {
		ts.Fatalf("%s: exit code %d, want none", name, got)
	}
	said := ts.ReadFile("stdout") + ts.ReadFile("stderr")
	if ok, err := regexp.MatchString("(?m)"+args[0], said); err != nil || !ok {
		ts.Fatalf("%s: %q does not say %q (%v)", name, said, args[0], err)
	}
}
