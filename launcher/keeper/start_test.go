package keeper

import (
	"testing"
	"time"

	"github.com/whisk-sandbox/whisk/launcher"
)

// TestStartRightAfterTheEnd starts a sandbox again as soon as its end is told, while its keeper still takes it down.
func TestStartRightAfterTheEnd(t *testing.T) {
	const rounds = 10
	for _, network := range []string{"none", "own"} {
		t.Run(network, func(t *testing.T) {
			b := newBench(t)
			s := b.spec("sh", "-c", "echo started")
			s.Remove, s.Name = false, "again"
			if network == "own" {
				s.Network = s.ID
			}
			if out, code, err := b.run(s); err != nil || code != 0 || out != "started\n" {
				t.Fatalf("got %q, %d, %v", out, code, err)
			}
			for round := 1; round <= rounds; round++ {
				if err := b.open(s).StartSandbox(t.Context(), s.ID, nil); err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
				for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
					lines := 0
					_ = launcher.ReadLog(t.Context(), b.dirs, s.ID, launcher.LogOptions{Tail: -1}, func(launcher.LogLine) error { lines++; return nil })
					rec, err := launcher.ReadRecord(b.dirs, s.ID)
					if err == nil && lines == 1+round && rec.State == launcher.Exited {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("round %d: %d lines in the log, %+v, %v", round, lines, rec, err)
					}
				}
			}
			b.nothingRuns()
		})
	}
}
