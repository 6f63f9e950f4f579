package main

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// defaultRounds keeps a plain go test short; WHISK_KILL9_ROUNDS asks for more, as CI does.
const defaultRounds = 30

const killProject = `
name = "target"
[app.first]
image = "busybox"
command = ["sleep", "1000"]
mounts = ["kept:/kept"]
ports = ["0:80"]
[app.second]
image = "busybox"
command = ["sleep", "1000"]
depends_on = ["first"]
[volume.kept]
`

// TestKill9 kills a command or its keeper at a random moment during up, run and down. Whatever the moment: a killed
// keeper, or a killed command in the foreground, leaves nothing running; the next command tells the truth; the next up
// works.
func TestKill9(t *testing.T) {
	rounds := defaultRounds
	if s := os.Getenv("WHISK_KILL9_ROUNDS"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatalf("WHISK_KILL9_ROUNDS: %v", err)
		}
	}
	k := newKilling(t)
	k.must("load", "-i", os.Getenv(envImages), "--ref", "docker.io/library/busybox:latest")

	// How long each takes when nobody disturbs it: the moments are spread over that, and a little beyond.
	actions := [][]string{{"up", "-d"}, {"run", "--rm", "busybox", "true"}, {"down"}}
	took := map[string]time.Duration{}
	for _, action := range actions {
		start := time.Now()
		k.must(action...)
		took[action[0]] = time.Since(start)
	}
	k.settled("before the first round", true)

	for round := range rounds {
		action := actions[rand.IntN(len(actions))]
		moment := time.Duration(rand.Int64N(int64(took[action[0]]) * 5 / 4))
		victim := []string{"command", "keeper"}[rand.IntN(2)]
		k.round = fmt.Sprintf("round %d: kill -9 of the %s %v into %q", round, victim, moment, strings.Join(action, " "))
		k.play(action, moment, victim)
		if t.Failed() {
			return
		}
	}
}

// killing is a user's home and session in which things get killed.
type killing struct {
	*testing.T
	watch watch
	env   []string
	round string // what this round does, for messages
}

func newKilling(t *testing.T) *killing {
	t.Helper()
	k := &killing{T: t, watch: watch{work: t.TempDir(), id: crand.Text()}, round: "first"}
	run, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	k.watch.run = run
	t.Cleanup(func() {
		k.watch.kill()
		k.watch.remove()
	})
	home := filepath.Join(k.watch.work, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "whisk.toml"), []byte(killProject), 0o600); err != nil {
		t.Fatal(err)
	}
	k.env = []string{
		"PATH=" + filepath.Dir(os.Getenv(envBinary)) + ":" + os.Getenv("PATH"), "HOME=" + home, "USER=" + os.Getenv("USER"),
		"XDG_RUNTIME_DIR=" + run, "WHISK_TEST_ID=" + k.watch.id,
	}
	return k
}

// patience is how long one command may take; each is done within a second here.
const patience = time.Minute

func (k *killing) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(k.Context(), patience)
	k.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Getenv(envBinary), args...)
	// A command that hangs is to say where: Go prints its stacks.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) }
	cmd.Env = k.env
	cmd.Dir = filepath.Join(k.watch.work, "home")
	// Whoever inherits the output must not make Wait last for ever.
	cmd.WaitDelay = settle
	return cmd
}

// must runs whisk, which has to succeed, and returns its stdout.
func (k *killing) must(args ...string) []byte {
	k.Helper()
	var stdout, stderr bytes.Buffer
	cmd := k.command(args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		k.Fatalf("%s: whisk %s: %v\n%s", k.round, strings.Join(args, " "), err, &stderr)
	}
	return stdout.Bytes()
}

// settled fails when something runs or is mounted. A killed keeper cannot take its socket away: files are for the
// next command to tidy up.
func (k *killing) settled(when string, files bool) {
	k.Helper()
	if left := k.watch.settle(k.Context(), files); len(left) > 0 {
		k.Fatalf("%s: left %s:\n\t%s", k.round, when, strings.Join(left, "\n\t"))
	}
}

func (k *killing) play(action []string, moment time.Duration, victim string) {
	k.Helper()
	if action[0] == "down" {
		k.must("up", "-d")
	}
	cmd := k.command(action...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		k.Fatal(err)
	}
	time.Sleep(moment)
	keepers := k.watch.keepers()
	if victim == "keeper" && len(keepers) > 0 {
		for _, pid := range keepers {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have left by itself meanwhile
		}
	} else {
		victim = "command" // no keeper yet, or none any more
		_ = cmd.Process.Kill()
	}
	err := cmd.Wait()

	// Whether a killed `up -d` or `down` had asked its keeper for anything cannot be told: both outcomes are right, and
	// the next down ends it. So is an `up -d` that has started anew with another keeper.
	k.truth()
	if victim == "command" && action[0] != "run" || action[0] == "up" && err == nil {
		k.must("down")
	}
	k.settled("after the kill", false)
	k.must("up", "-d")
	k.must("down")
	k.settled("after the next up and down", true)
}

// truth compares what whisk says runs with what does.
func (k *killing) truth() {
	k.Helper()
	var sandboxes []struct {
		Name  string `json:"name"`
		State string `json:"state"`
		PID   int    `json:"pid"`
	}
	out := k.must("ps", "-a", "--json")
	if err := json.Unmarshal(out, &sandboxes); err != nil {
		k.Fatalf("%s: ps: %v\n%s", k.round, err, out)
	}
	for _, s := range sandboxes {
		if s.State != "running" {
			continue
		}
		if err := syscall.Kill(s.PID, 0); err == syscall.ESRCH {
			// It may have been on its way out when ps looked.
			time.Sleep(time.Second)
			if again := k.must("ps", "-a", "--json"); bytes.Contains(again, fmt.Appendf(nil, `"pid":%d,`, s.PID)) || bytes.Contains(again, fmt.Appendf(nil, `"pid": %d,`, s.PID)) {
				k.Errorf("%s: ps says that %s runs as process %d, which does not exist", k.round, s.Name, s.PID)
			}
		}
	}
}
