package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestUpsAndDownsAtOnce runs up and down of one project from several terminals at the same moment. Each of them ends,
// without a complaint about the others, and nothing is left after the last down.
func TestUpsAndDownsAtOnce(t *testing.T) {
	k := newKilling(t)
	k.must("load", "-i", os.Getenv(envImages), "--ref", "docker.io/library/busybox:latest")
	for round := range 8 {
		k.round = fmt.Sprintf("round %d", round)
		var all sync.WaitGroup
		for _, args := range slices.Repeat([][]string{{"up", "-d"}, {"down"}}, 4) {
			all.Go(func() {
				cmd := k.command(args...)
				var output bytes.Buffer
				cmd.Stdout, cmd.Stderr = &output, &output
				if err := cmd.Run(); err != nil {
					k.Errorf("%s: whisk %v: %v\n%s", k.round, args, err, &output)
				}
			})
		}
		all.Wait()
		k.truth()
		k.must("down")
		k.settled("after the last down", true)
		if t.Failed() {
			return
		}
	}
}

// TestCommandsAtOnce has several terminals type at random, about the same few sandboxes, volumes and networks. What is
// refused is refused in whisk's own words, every command ends, and when all is removed nothing is left.
func TestCommandsAtOnce(t *testing.T) {
	k := newKilling(t)
	k.must("load", "-i", os.Getenv(envImages), "--ref", "docker.io/library/busybox:latest")
	choose := func() []string {
		name, volume, network := "n"+strconv.Itoa(rand.IntN(3)), "v"+strconv.Itoa(rand.IntN(2)), "net"+strconv.Itoa(rand.IntN(2))
		all := [][]string{
			{"run", "-d", "--name", name, "-v", volume + ":/d", "busybox", "sleep", "1000"},
			{"run", "-d", "--name", name, "--network", network, "busybox", "sleep", "1000"},
			{"run", "-d", "--rm", "--name", name, "-p", "0:80", "busybox", "sleep", "0.1"},
			{"run", "--rm", "-v", volume + ":/d", "busybox", "touch", "/d/x"},
			{"stop", "-t", "0", name}, {"start", name}, {"restart", "-t", "0", name}, {"rm", "-f", name}, {"rm", name},
			{"exec", name, "true"}, {"logs", name}, {"ps", "-a"}, {"volume", "rm", volume}, {"volume", "ls"},
			{"network", "create", network}, {"network", "rm", network}, {"network", "ls"}, {"up", "-d"}, {"down", "-t", "0", "-v"},
		}
		return all[rand.IntN(len(all))]
	}
	// Words of the inside, which tell a user nothing.
	inside := regexp.MustCompile(`goroutine|panic|keeper ended|is leaving|cannot allocate|no such file|reset by peer|died while`)
	var typing sync.WaitGroup
	for range 5 {
		typing.Go(func() {
			for range 60 {
				args := choose()
				cmd := k.command(args...)
				var output bytes.Buffer
				cmd.Stdout, cmd.Stderr = &output, &output
				err := cmd.Run()
				var exit *exec.ExitError
				if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 125 && exit.ExitCode() != 128+int(syscall.SIGKILL)) || inside.Match(output.Bytes()) {
					k.Errorf("whisk %v: %v\n%s", args, err, &output)
				}
			}
		})
	}
	typing.Wait()
	k.truth()
	k.must("down", "-t", "0", "-v")
	for _, list := range [][]string{{"ps", "-aq"}, {"volume", "ls", "-q"}} {
		names := strings.Fields(string(k.must(list...)))
		remove := append([]string{"rm", "-f"}, names...)
		if list[0] == "volume" {
			remove = append([]string{"volume"}, remove...)
		}
		if len(names) > 0 {
			k.must(remove...)
		}
	}
	k.round = "at the end"
	k.settled("after all was removed", true)
}
