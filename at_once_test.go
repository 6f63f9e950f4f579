package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"sync"
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
