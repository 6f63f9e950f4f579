package keeper

import (
	"sync"
	"time"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/slirp"
)

// maxFlows bounds the flows that wait to be written down. Whoever tells of one carries packets and must not wait for
// the disk: what comes beyond is only counted.
const maxFlows = 4096

// flowLog writes the flows of the keeper's network down:
//
//	packets ─▶ take ─▶ waiting ─▶ run ─▶ egress.log
//	                └─ full ─▶ lost, a number
type flowLog struct {
	wake chan struct{} // has room for one: there is something to do
	done chan struct{} // closed when run has ended

	mu      sync.Mutex
	file    *launcher.FlowLog // nil: no sandbox has come yet
	waiting []slirp.Flow
	lost    int
	closed  bool
}

func newFlowLog() *flowLog {
	return &flowLog{wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// place says where the flows of a sandbox go. All sandboxes of a network have the same place; the first one counts.
func (l *flowLog) place(d launcher.Dirs, s *launcher.Spec) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil && s.Network != "none" {
		l.file = launcher.NewFlowLog(d, s)
	}
}

// take is slirp's OnFlow.
func (l *flowLog) take(f slirp.Flow) {
	l.mu.Lock()
	if len(l.waiting) < maxFlows {
		l.waiting = append(l.waiting, f)
	} else {
		l.lost += f.Count
	}
	l.mu.Unlock()
	l.nudge()
}

func (l *flowLog) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run writes until the log is closed and nothing waits.
func (l *flowLog) run() {
	defer close(l.done)
	for range l.wake {
		l.mu.Lock()
		file, waiting, lost, closed := l.file, l.waiting, l.lost, l.closed
		l.waiting, l.lost = nil, 0
		l.mu.Unlock()
		if file != nil {
			for i := range waiting {
				file.Write(flowLine(&waiting[i]))
			}
			if lost > 0 {
				now := time.Now().UTC()
				file.Write(launcher.FlowLine{Time: now, Began: now, Verdict: launcher.FlowLost, Count: lost})
			}
		}
		if closed {
			if file != nil {
				_ = file.Close() // every line was written when it came
			}
			return
		}
	}
}

// clear forgets what was written.
func (l *flowLog) clear() error {
	l.mu.Lock()
	file := l.file
	l.mu.Unlock()
	if file == nil {
		return nil
	}
	return file.Clear()
}

// close returns when everything is written. No more flows may come; run has been started.
func (l *flowLog) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.nudge()
	<-l.done
}

// flowLine is a flow as the log has it.
func flowLine(f *slirp.Flow) launcher.FlowLine {
	line := launcher.FlowLine{
		Time: f.Ended.UTC(), Began: f.Began.UTC(), App: f.App, Verdict: launcher.FlowAllowed, Protocol: f.Protocol,
		Name: f.Name, Also: f.Also, Port: f.To.Port(), Sent: f.Sent, Received: f.Received, Why: f.Why, Count: f.Count,
	}
	if f.To.IsValid() {
		line.Address = f.To.Addr().String()
	}
	switch {
	case f.Denied:
		line.Verdict = launcher.FlowDenied
	case f.Why != "":
		line.Verdict = launcher.FlowFailed
	}
	return line
}
