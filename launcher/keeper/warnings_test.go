package keeper

import (
	"errors"
	"log/slog"
	"slices"
	"testing"
)

func TestWarningsAreKeptOnce(t *testing.T) {
	var w warnings
	log := slog.New(&w)
	log.Debug("a detail")
	for range 2 {
		log.Warn("TCP goes through user mode", "err", errors.New("no tproxy"), "hint", "modprobe nft_tproxy")
	}
	log.Error("network lost its uplink", "port", 80)
	want := []string{"TCP goes through user mode: no tproxy; modprobe nft_tproxy", "network lost its uplink (port 80)"}
	if got := w.all(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for i := range 100 {
		log.Warn("warning", "n", i)
	}
	if got := len(w.all()); got != maxWarnings {
		t.Errorf("%d are kept, want %d", got, maxWarnings)
	}
}
