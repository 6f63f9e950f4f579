package slirp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Flow is what became of one flow that left the network or tried to: a TCP connection, the datagrams between two
// addresses, or the echo requests of one ping.
type Flow struct {
	Began    time.Time
	Ended    time.Time
	App      string         // the sandbox's name on this network
	Protocol string         // "tcp", "udp", "icmp"; what is not carried: "sctp", "gre", "ip-N"; "dns": a name that it was kept from asking for; empty in a sum of several
	Source   netip.AddrPort // the sandbox's address; a ping's identifier stands for the port
	To       netip.AddrPort // the zero AddrPort for a name, and in a sum of several; a ping's port is 0
	Name     string         // what the sandbox knows To as, from its own DNS; empty: it used the address
	Also     []string       // what else it knows To as: several names may share an address, and which one it meant cannot be told
	Sent     int64          // bytes of payload from the sandbox
	Received int64          // bytes of payload to the sandbox
	Denied   bool
	Why      string // why it was denied, or could not be made; empty otherwise
	Count    int    // how many flows this stands for, at least 1: refusals that repeat are told of together
}

// flowLog tells Config.OnFlow of flows. Its methods do nothing on a nil one, and may be called by several goroutines at
// once.
type flowLog struct {
	on     func(Flow)
	net    *Network
	failed repeats
}

// newFlowLog returns nil if nobody wants to know.
func newFlowLog(n *Network) *flowLog {
	if n.config.OnFlow == nil {
		return nil
	}
	l := &flowLog{on: n.config.OnFlow, net: n}
	l.failed.tell = l.on
	return l
}

// close tells what is still held back. No flow may come any more.
func (l *flowLog) close() {
	if l != nil {
		l.failed.close()
	}
}

// openFlow is a flow under way. Its methods do nothing on a nil one, and may be called by several goroutines at once.
type openFlow struct {
	log            *flowLog
	flow           Flow
	sent, received atomic.Int64

	mu  sync.Mutex
	why string
}

// begin notes a flow that the policy has allowed. Who it belongs to is looked up now: its sandbox may have left when it ends.
func (l *flowLog) begin(f flow) *openFlow {
	if l == nil {
		return nil
	}
	return &openFlow{log: l, flow: l.describe(f)}
}

func (l *flowLog) describe(f flow) Flow {
	d := Flow{Began: time.Now(), Protocol: f.protocol(), Source: f.src, To: f.dst, Count: 1}
	if e := l.net.names.endpoint(f.src.Addr()); e != nil {
		d.App = e.name
		if names := e.known.names(d.Began, f.dst.Addr()); len(names) > 0 {
			d.Name, d.Also = names[0], names[1:]
		}
	}
	if a := f.dst.Addr(); a == l.net.plan.gw4 || a == l.net.plan.gw6 {
		d.Name = HostName
	}
	return d
}

// denied tells of a flow that the policy has refused.
func (l *flowLog) denied(f flow, why string) {
	if l == nil {
		return
	}
	d := l.describe(f)
	d.Ended, d.Denied, d.Why = d.Began, true, why
	l.failed.add(d)
}

// deniedName tells of a name that the policy keeps a sandbox from asking for.
func (l *flowLog) deniedName(e *Endpoint, name, why string) {
	if l == nil {
		return
	}
	now := time.Now()
	l.failed.add(Flow{
		Began: now, Ended: now, App: e.name, Protocol: "dns", Source: netip.AddrPortFrom(e.v4, 0), Name: name, Denied: true, Why: why, Count: 1,
	})
}

// count adds bytes of payload.
func (o *openFlow) count(sent, received int64) {
	if o != nil {
		o.sent.Add(sent)
		o.received.Add(received)
	}
}

// fail notes why the flow cannot be, or is no more. The first reason counts.
func (o *openFlow) fail(err error) {
	if o == nil || err == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.why == "" {
		o.why = inWords(err)
	}
}

// deny notes that the policy has refused the flow after all, and why.
func (o *openFlow) deny(why string) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flow.Denied, o.why = true, why
}

// end tells of the flow. It is called once, when nothing more is counted.
func (o *openFlow) end() {
	if o == nil {
		return
	}
	o.mu.Lock()
	f := o.flow
	f.Why = o.why
	o.mu.Unlock()
	f.Ended, f.Sent, f.Received = time.Now(), o.sent.Load(), o.received.Load()
	switch {
	case f.Received > 0 && !f.Denied:
		f.Why = "" // it was there; an error at its end is the app's to see
		o.log.on(f)
	case f.Why != "":
		o.log.failed.add(f)
	default:
		o.log.on(f)
	}
}

// errAppGone is why a connection that the host made came to nothing.
var errAppGone = errors.New("the app had given up")

// inWords is an error without what package net says of the addresses, which the flow names already.
func inWords(err error) string {
	var timeout net.Error
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno.Error()
	}
	switch {
	case errors.Is(err, context.Canceled):
		return "the sandbox left"
	case errors.As(err, &timeout) && timeout.Timeout():
		return unix.ETIMEDOUT.Error()
	}
	return err.Error()
}
