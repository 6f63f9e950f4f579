package launcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// flowFileSize is the size of one file of an egress log, some 15,000 flows. Three of these bound what apps can fill.
const flowFileSize = 4 << 20

// The verdicts of a FlowLine.
const (
	FlowAllowed = "allowed"
	FlowDenied  = "denied"
	FlowFailed  = "failed" // allowed, but it came to nothing: refused, unreachable, given up
	FlowLost    = "lost"   // Count flows came faster than they could be written down
)

// FlowLine is one line of an egress log: what became of a flow that left a network or tried to.
type FlowLine struct {
	Time     time.Time `json:"time"`               // when it had ended, or was refused
	Began    time.Time `json:"began"`              // when its first packet came
	App      string    `json:"app"`                // the sandbox's name on its network
	Verdict  string    `json:"verdict"`            // FlowAllowed, FlowDenied, FlowFailed or FlowLost
	Protocol string    `json:"protocol,omitempty"` // "tcp", "udp", "icmp" (ping), or "dns": a name that the app was kept from asking for; empty in a sum
	Name     string    `json:"name,omitempty"`     // what the app's DNS had called the address; empty: nothing
	Also     []string  `json:"also,omitempty"`     // further names of the address, which the app may have meant as well
	Address  string    `json:"address,omitempty"`  // empty for a name, and in a sum of several
	Port     uint16    `json:"port,omitempty"`     // of TCP and UDP
	Sent     int64     `json:"sent"`               // bytes of payload from the app
	Received int64     `json:"received"`           // bytes of payload to the app
	Why      string    `json:"why,omitempty"`      // why it was denied or has failed
	Count    int       `json:"count"`              // how many flows the line stands for; more than 1 where refusals repeat
}

// NetworkName is what a sandbox is called on its network.
func (s *Spec) NetworkName() string { return cmp.Or(s.App.Name, s.Name) }

// Private says that a sandbox has a network of its own, which ends with it.
func (s *Spec) Private() bool { return s.Network == s.ID }

// NetworkData is the folder of what is kept of a network that several sandboxes may join: its egress log, and what whisk
// network create has said of it.
func (d Dirs) NetworkData(name string) string { return filepath.Join(d.Data, "networks", name) }

// EgressLog is the file of a network's egress log.
func (d Dirs) EgressLog(network string) string {
	return filepath.Join(d.NetworkData(network), egressFile)
}

const egressFile = "egress.log"

// EgressLog is the file that the sandbox's flows are in. That of a private network is in the sandbox's folder, and goes
// with it.
func (s *Spec) EgressLog(d Dirs) string {
	if s.Private() {
		return filepath.Join(d.Sandbox(s.ID), egressFile)
	}
	return d.EgressLog(s.KeeperName())
}

// HasEgressLog says whether there is a network of this name whose flows have been written down.
func HasEgressLog(d Dirs, network string) bool {
	_, err := os.Stat(d.EgressLog(network))
	return err == nil
}

// RemoveEgressLog forgets the flows of a network, which no keeper should hold: it would write on where nobody looks.
func RemoveEgressLog(d Dirs, network string) error {
	if err := removeLines(d.EgressLog(network)); err != nil {
		return fmt.Errorf("remove egress log: %w", err)
	}
	if err := os.Remove(d.NetworkData(network)); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
		return err // ErrExist is ENOTEMPTY: it holds more than the log
	}
	return nil
}

// FlowLog writes an egress log. It is safe for use by several goroutines.
type FlowLog struct {
	name    string
	private bool

	mu    sync.Mutex
	lines *lineFile // nil: nothing to write yet
}

// NewFlowLog is the egress log of a sandbox's network. The file is made by the first line, and so is its folder unless
// that is the sandbox's.
func NewFlowLog(d Dirs, s *Spec) *FlowLog {
	return &FlowLog{name: s.EgressLog(d), private: s.Private()}
}

// Write adds a line. A full disk loses it, as does a sandbox that is removed already.
func (l *FlowLog) Write(line FlowLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines == nil {
		if !l.private {
			_ = os.MkdirAll(filepath.Dir(l.name), 0o700) // opening says why not
		}
		f, err := openLineFile(l.name, flowFileSize)
		if err != nil {
			return
		}
		l.lines = f
	}
	l.lines.write(line)
}

// Clear forgets all lines.
func (l *FlowLog) Clear() error {
	return errors.Join(l.Close(), removeLines(l.name))
}

// Close closes the file. A line that comes later opens it again.
func (l *FlowLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines == nil {
		return nil
	}
	err := l.lines.close()
	l.lines = nil
	return err
}

// FlowOptions choose the lines that ReadFlows gives.
type FlowOptions struct {
	LogOptions
	Apps   []string    // only flows of these; empty: of all
	Denied bool        // only those that were denied
	Ended  func() bool // says that no more flows can come; for Follow
}

// wants tells which lines are given. Lines about lost flows are, where flows of all apps are.
func (o *FlowOptions) wants(l *FlowLine) bool {
	switch {
	case l.Time.Before(o.Since), o.Denied && l.Verdict != FlowDenied:
		return false
	case len(o.Apps) == 0:
		return true
	}
	return slices.Contains(o.Apps, l.App)
}

// ReadFlows calls each for the lines of an egress log, in the order in which the flows ended. A log that is not there is
// empty. With Follow it returns when Ended says so and all has been given, or when ctx is done.
func ReadFlows(ctx context.Context, name string, o FlowOptions, each func(FlowLine) error) error {
	ended := o.Ended
	if ended == nil {
		ended = func() bool { return true }
	}
	return readLines(ctx, name, o.LogOptions, nil, o.wants, ended, each)
}

// flowGrace is for how long flows may still be written down of a sandbox that has ended on a network that goes on.
const flowGrace = time.Second

// FlowsEnded says when no more flows of some sandboxes can come: when nobody holds their network, or they have all ended
// and left it. With none it is the network that counts.
func FlowsEnded(d Dirs, network string, ids []string) func() bool {
	var since time.Time
	return func() bool {
		if !Held(d, network) {
			return true
		}
		if len(ids) == 0 || slices.ContainsFunc(ids, func(id string) bool { return running(d, id) }) {
			since = time.Time{}
			return false
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) > flowGrace
	}
}
