package image

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// pace is what a registry's answer must at least bring: a line that is slow but honest does, one that sends a byte now and
// then to keep whisk waiting does not. Only the time spent waiting counts, not what whisk takes to unpack.
type pace struct {
	window time.Duration
	least  int64 // bytes in a window

	waited time.Duration
	got    int64
}

// defaultPace asks for 64 bytes a second, which a telephone line brings many times over.
func defaultPace() pace {
	return pace{window: stallTimeout, least: 64 * int64(stallTimeout/time.Second)}
}

// slowError is an answer that brings next to nothing.
type slowError struct {
	got    int64
	window time.Duration
}

// Error implements error.
func (e *slowError) Error() string {
	if e.got == 0 {
		return fmt.Sprintf("nothing arrived for %s", e.window)
	}
	return fmt.Sprintf("only %d bytes arrived in %s", e.got, e.window)
}

// brought counts n bytes that took some waiting. It fails when a window is over that has brought too little.
func (p *pace) brought(n int, waiting time.Duration) error {
	p.got += int64(n)
	p.waited += waiting
	if p.waited < p.window {
		return nil
	}
	got := p.got
	p.got, p.waited = 0, 0
	if got < p.least && wall.Up("least pace") {
		return &slowError{got, p.window}
	}
	return nil
}

// read reads once, and ends by cancel what brings nothing for a window, or too little in one.
func (p *pace) read(cancel context.CancelCauseFunc, r io.Reader, b []byte) (int, error) {
	stall := time.AfterFunc(p.window, func() {
		if wall.Up("least pace") {
			cancel(&slowError{0, p.window})
		}
	})
	start := time.Now()
	n, err := r.Read(b)
	stall.Stop()
	if slow := p.brought(n, time.Since(start)); slow != nil && err == nil {
		cancel(slow)
		return n, slow
	}
	return n, err
}
