package image

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// LayerState is how far one layer has come.
type LayerState string

// The states of a layer; each layer ends in Kept or Done.
const (
	Kept        LayerState = "already here"
	Downloading LayerState = "downloading"
	Unpacking   LayerState = "unpacking"
	Done        LayerState = "done"
)

// Step is one piece of news about one layer.
type Step struct {
	Layer string // short digest
	State LayerState
	Bytes int64 // moved so far
	Total int64 // size of the blob; 0: unknown
}

// Progress is told of the steps of a pull or load. It is called from several goroutines, one call at a time.
type Progress func(Step)

// Lines prints a line when a layer begins and when it ends.
func Lines(w io.Writer) Progress {
	last := map[string]LayerState{}
	return func(s Step) {
		if last[s.Layer] == s.State || s.State == Unpacking {
			return
		}
		last[s.Layer] = s.State
		if s.State == Downloading && s.Total > 0 {
			fmt.Fprintf(w, "%s: %s %s\n", s.Layer, s.State, size(s.Total))
			return
		}
		fmt.Fprintf(w, "%s: %s\n", s.Layer, s.State)
	}
}

// Bars draws a bar for each layer and draws them again in place. width gives the terminal's columns.
func Bars(w io.Writer, width func() int) Progress {
	var order []string
	now := map[string]Step{}
	var drawn time.Time
	lines := 0
	return func(s Step) {
		old, known := now[s.Layer]
		if !known {
			order = append(order, s.Layer)
		}
		now[s.Layer] = s
		// Ten times a second is as much as an eye follows; changes of state are always drawn.
		if known && old.State == s.State && time.Since(drawn) < 100*time.Millisecond {
			return
		}
		drawn = time.Now()
		var b strings.Builder
		if lines > 0 {
			fmt.Fprintf(&b, "\x1b[%dA", lines)
		}
		for _, layer := range order {
			b.WriteString("\r\x1b[K" + bar(now[layer], width()) + "\n")
		}
		lines = len(order)
		_, _ = io.WriteString(w, b.String())
	}
}

// bar is one line of at most width columns.
func bar(s Step, width int) string {
	head := fmt.Sprintf("%-12s %-12s ", s.Layer, s.State)
	tail := ""
	if s.Total > 0 && (s.State == Downloading || s.State == Unpacking) {
		tail = fmt.Sprintf(" %s/%s", size(s.Bytes), size(s.Total))
		if room := min(40, width-len(head)-len(tail)-3); room > 4 {
			full := int(min(s.Bytes, s.Total) * int64(room) / s.Total)
			head += "[" + strings.Repeat("=", full) + strings.Repeat(" ", room-full) + "]"
		}
	} else if s.Total > 0 {
		tail = size(s.Total)
	}
	line := head + tail
	return line[:max(0, min(len(line), width-1))]
}

// size prints bytes as people read them, in powers of ten as registries do.
func size(n int64) string {
	switch f := float64(n); {
	case f >= 1e9:
		return fmt.Sprintf("%.1f GB", f/1e9)
	case f >= 1e6:
		return fmt.Sprintf("%.1f MB", f/1e6)
	case f >= 1e3:
		return fmt.Sprintf("%.1f kB", f/1e3)
	}
	return fmt.Sprintf("%d B", n)
}

// oneAtATime makes a Progress safe to call from several goroutines; a nil one is silent.
func oneAtATime(p Progress) Progress {
	if p == nil {
		return func(Step) {}
	}
	var mu sync.Mutex
	return func(s Step) {
		mu.Lock()
		defer mu.Unlock()
		p(s)
	}
}
