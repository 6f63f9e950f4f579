package image

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Lines prints a line when a layer begins to arrive and when it ends: for logs.
func Lines(w io.Writer) Progress {
	last := map[string]LayerState{}
	return func(s Step) {
		if last[s.Layer] == s.State || s.State == Waiting {
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

const (
	// redraw is as often as an eye follows; changes of state are drawn at once.
	redraw = 100 * time.Millisecond
	// maxBars keeps the bars on a small screen: what has scrolled off cannot be drawn again.
	maxBars = 16
)

// Bars draws a bar for each layer and draws them again in place: for terminals. width gives the terminal's columns,
// and is asked each time. Of very many layers it shows those that move, and counts the others.
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
		if known && old.State == s.State && time.Since(drawn) < redraw {
			return
		}
		drawn = time.Now()
		picture := bars(order, now, width())
		var b strings.Builder
		if lines > 0 {
			fmt.Fprintf(&b, "\x1b[%dA", lines)
		}
		for _, line := range picture {
			b.WriteString("\r\x1b[K" + line + "\n")
		}
		if len(picture) < lines { // what the last picture had more
			b.WriteString("\x1b[J")
		}
		lines = len(picture)
		_, _ = io.WriteString(w, b.String()) // a terminal that is gone is no reason to stop
	}
}

// bars are the lines to show.
func bars(order []string, now map[string]Step, width int) []string {
	var out []string
	hidden := 0
	for _, layer := range order {
		s := now[layer]
		if len(order) > maxBars && (s.State != Downloading || len(out) == maxBars-1) {
			hidden++
			continue
		}
		out = append(out, bar(s, width))
	}
	if hidden > 0 {
		done := 0
		for _, s := range now {
			if s.State == Done || s.State == Kept {
				done++
			}
		}
		out = append(out, fmt.Sprintf("%d of %d layers done", done, len(order)))
	}
	return out
}

// bar is one line of at most width-1 columns: a full line makes some terminals wrap.
func bar(s Step, width int) string {
	line := fmt.Sprintf("%-12s %-12s ", s.Layer, s.State)
	switch {
	case s.Total > 0 && s.State == Downloading:
		tail := fmt.Sprintf(" %s/%s", size(s.Bytes), size(s.Total))
		if room := min(40, width-len(line)-len(tail)-3); room > 4 {
			full := int(min(s.Bytes, s.Total) * int64(room) / s.Total)
			line += "[" + strings.Repeat("=", full) + strings.Repeat(" ", room-full) + "]"
		}
		line += tail
	case s.Total > 0:
		line += size(s.Total)
	}
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
