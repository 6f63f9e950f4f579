package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// settle is how long whisk may take to be gone: a command returns as soon as its app has ended, and its network's
// namespaces are taken down behind the user's back. A loaded CI machine needs most of it.
const settle = 10 * time.Second

// watch knows what belongs to one script, and finds what is left of it.
type watch struct {
	work string // $WORK, below which the store is
	run  string // $XDG_RUNTIME_DIR
	id   string // $WHISK_TEST_ID
}

type watchKey struct{}

// end fails the test when its script has left something behind, and cleans up.
func (w *watch) end(t testscript.T) {
	failed := t.(interface{ Failed() bool }).Failed()
	var left []string
	if failed {
		t.Log(w.logs())
	} else {
		left = w.settle(context.Background(), true)
	}
	w.kill()
	w.remove()
	if len(left) > 0 {
		t.Fatal("left behind:\n\t" + strings.Join(left, "\n\t"))
	}
}

// settle waits until nothing is left, and returns what is after all. Without files it looks at processes and mounts alone.
func (w *watch) settle(ctx context.Context, files bool) []string {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for {
		left := w.leaks()
		if files {
			left = append(left, w.files()...)
		}
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return left
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// leaks names the processes and mounts that the script has left, one a line. A listening port or a
// network namespace lives in a process or a mount.
func (w *watch) leaks() []string {
	var left []string
	for _, pid := range w.processes() {
		cmdline, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		left = append(left, fmt.Sprintf("process %d: %s", pid, bytes.TrimSpace(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}))))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		left = append(left, err.Error())
	}
	for line := range strings.Lines(string(mounts)) {
		if w.names(line) {
			left = append(left, "mount: "+strings.TrimSpace(line))
		}
	}
	return left
}

// sharedFolder is for the networks of the usual store, or of one that config.toml names.
var sharedFolder = regexp.MustCompile("^whisk(-[0-9a-f]{8})?(/networks)?$")

// files names what is left in the runtime directory, but for the folders that all networks share.
func (w *watch) files() []string {
	var left []string
	err := filepath.WalkDir(w.run, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(w.run, path)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it went away meanwhile
			return nil
		case err != nil:
			return err
		case rel != "." && !sharedFolder.MatchString(rel):
			left = append(left, "runtime file: "+rel)
		}
		return nil
	})
	if err != nil {
		left = append(left, err.Error())
	}
	return left
}

// names says whether s names the script's folders or something in them. Another script's may begin alike.
func (w *watch) names(s string) bool {
	for _, dir := range []string{w.work, w.run} {
		for rest := s; ; {
			_, after, found := strings.Cut(rest, dir)
			if !found {
				break
			}
			if after == "" || strings.ContainsRune("/ :,\\\n", rune(after[0])) {
				return true
			}
			rest = after
		}
	}
	return false
}

// processes finds what the script has started: by the mark in the environment, and, since a sandbox has an environment
// of its own, by what it has mounted and where it works.
func (w *watch) processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if w.owns(filepath.Join("/proc", e.Name())) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (w *watch) owns(proc string) bool {
	if exe, err := os.Readlink(filepath.Join(proc, "exe")); err == nil && filepath.Base(exe) == "docker-registry" {
		return false // a fixture, which the script's end stops
	}
	// A process that has ended shows neither its environment nor its mounts.
	if environ, err := os.ReadFile(filepath.Join(proc, "environ")); err == nil && bytes.Contains(environ, []byte("WHISK_TEST_ID="+w.id)) {
		return true
	}
	// Its own mounts are the script's where they show a path below $WORK. The suite and its other children do not.
	if mounts, err := os.ReadFile(filepath.Join(proc, "mountinfo")); err == nil && w.names(string(mounts)) {
		return true
	}
	for _, link := range []string{"cwd", "root", "exe"} {
		if to, err := os.Readlink(filepath.Join(proc, link)); err == nil && w.names(to) {
			return true
		}
	}
	return false
}

// kill ends what is left, so that one script's leak is not the next one's.
func (w *watch) kill() {
	for range 50 {
		pids := w.processes()
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended, or be another id's whose keeper ends it
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// remove takes the script's files away. Those of the store belong to subordinate ids, which only root in a user
// namespace can remove.
func (w *watch) remove() {
	os.RemoveAll(w.run)
	home := filepath.Join(w.work, "home")
	if os.RemoveAll(home) == nil {
		return
	}
	// What this cannot remove either goes with the test user's folder.
	_ = exec.Command("unshare", "--map-root-user", "--map-auto", "rm", "-rf", home).Run()
}

// logs gathers what the script's sandboxes have said.
func (w *watch) logs() string {
	var b strings.Builder
	logs, _ := filepath.Glob(filepath.Join(w.work, "home/.local/share/whisk/sandboxes/*/log"))
	keepers, _ := filepath.Glob(filepath.Join(w.run, "whisk*/networks/*/log"))
	for _, name := range append(logs, keepers...) {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		const tail = 4000
		if len(text) > tail {
			text = text[len(text)-tail:]
		}
		fmt.Fprintf(&b, "[%s]\n%s\n", name, text)
	}
	return b.String()
}
