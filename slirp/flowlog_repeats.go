package slirp

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

const (
	// repeatWindow is for how long refusals that are alike are counted before they are told of again.
	repeatWindow = time.Second

	// maxRefusals bounds the different refusals that are told of in a window for one sandbox: a port scan makes a new one
	// with each packet. The others are counted together.
	maxRefusals = 50
)

// repeats tells of flows that came to nothing, denied or failed, without letting an app that tries again and again fill
// the log: the first of a kind at once, those alike it within repeatWindow as one with a count, and those of more than
// maxRefusals kinds as one for them all.
type repeats struct {
	tell func(Flow)

	mu    sync.Mutex
	kinds map[refusal]*Flow // told of in this window; the Flow, if any, is what has come since
	many  map[refusalSum]*Flow
	told  map[string]int // kinds for each app
	timer *time.Timer    // at the window's end; nil: no window is open
}

// refusal is what makes two flows alike.
type refusal struct {
	app, protocol, name, why string
	to                       netip.AddrPort
	denied                   bool
}

// refusalSum is what is counted together beyond maxRefusals.
type refusalSum struct {
	app    string
	denied bool
}

func (r *repeats) add(f Flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer == nil {
		r.kinds, r.many, r.told = make(map[refusal]*Flow), make(map[refusalSum]*Flow), make(map[string]int)
		r.timer = time.AfterFunc(repeatWindow, r.end)
	}
	kind := refusal{f.App, f.Protocol, f.Name, f.Why, f.To, f.Denied}
	if before, again := r.kinds[kind]; again {
		r.kinds[kind] = addFlow(before, f)
		return
	}
	if r.told[f.App] >= maxRefusals {
		sum := refusalSum{f.App, f.Denied}
		r.many[sum] = addFlow(r.many[sum], f)
		return
	}
	r.told[f.App]++
	r.kinds[kind] = nil
	r.tell(f)
}

// addFlow counts b to a.
func addFlow(a *Flow, b Flow) *Flow {
	if a == nil {
		return &b
	}
	a.Ended = b.Ended
	a.Count += b.Count
	a.Sent += b.Sent
	a.Received += b.Received
	return a
}

// end tells what has come in the window, and closes it.
func (r *repeats) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flush()
}

func (r *repeats) flush() {
	for _, f := range r.kinds {
		if f != nil {
			r.tell(*f)
		}
	}
	for _, f := range r.many {
		f.Why = fmt.Sprintf("more than %d destinations in a second", maxRefusals)
		f.Protocol, f.To, f.Name = "", netip.AddrPort{}, ""
		r.tell(*f)
	}
	if r.timer != nil {
		r.timer.Stop()
	}
	r.kinds, r.many, r.told, r.timer = nil, nil, nil, nil
}

// close tells what is held back.
func (r *repeats) close() { r.end() }
