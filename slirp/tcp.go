package slirp

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	// maxDials bounds connections being made, in all and for one sandbox: each try of a port scan of addresses that never
	// answer holds a descriptor and a goroutine, and so does each SYN of an app that makes its own and takes no answer
	// (CAP_NET_RAW). Above it SYNs are dropped, and the app's kernel sends them again.
	maxDials       = 2048
	maxDialsSource = 512

	// dialTimeout is longer than Linux tries to connect (tcp_syn_retries = 6: 127 s; 131 s from 6.5 on, which adds
	// tcp_syn_linear_timeouts = 4), so that an app learns of a silent peer from its own kernel, as ETIMEDOUT.
	dialTimeout = 140 * time.Second

	// giveUpLater is for the app's kernel to give up first, as ETIMEDOUT, where it tries as often as the host's.
	giveUpLater = time.Second

	// handshakeTimeout ends a connection whose app has gone between its SYN and the host's answer.
	handshakeTimeout = 30 * time.Second
)

// tcpFlows are the connections that leave the network. A SYN is held until the host has connected to its destination, so
// that the app sees what the host saw:
//
//	SYN ─▶ held ─┬─ refused ─────▶ RST
//	             ├─ unreachable ─▶ ICMP
//	             └─ connected ───▶ the SYN goes on to the carrier ─▶ joined ─▶ relay between app and host
type tcpFlows struct {
	gate        *gate
	transparent *transparent // nil: the kernel is not to carry connections
	loops       *loops

	choice  sync.Once
	chosen  chan struct{} // closed when carrier is set
	carrier tcpCarrier

	mu       sync.Mutex
	flows    map[flow]*tcpFlow
	dials    int
	bySource map[netip.Addr]int
}

// tcpFlow is one connection. One goroutine has it from its SYN to its end.
type tcpFlow struct {
	ctx     context.Context
	cancel  context.CancelFunc
	verdict verdict
	log     *openFlow       // may be nil
	syn     packet          // the newest while it is held: an app that gives up and begins anew, from the same port, takes no answer to an older one
	number  uint32          // sequence number of the newest SYN
	passed  bool            // the host is connected: SYNs go on to the carrier
	joined  bool            // the app's half has come, or will not
	app     chan halfCloser // the app's half, once; nil if there will be none
	next    []byte          // SYN of the connection that follows from the same port
	done    chan struct{}   // closed when the flow has ended, and its peers know
}

// tcpCarrier completes the app's half of connections and gives it to tcpFlows.join: kernelTCP, or netstack where the
// kernel lacks what that needs.
type tcpCarrier interface {
	// syn continues a SYN whose destination is connected, segment any later packet. The bytes are the caller's again when
	// they return.
	syn(ip []byte)
	segment(ip []byte)
	close()
}

func (t *tcpFlows) init(g *gate, tr *transparent, lo *loops) {
	t.gate = g
	t.transparent, t.loops = tr, lo
	t.chosen = make(chan struct{})
	t.flows = make(map[flow]*tcpFlow)
	t.bySource = make(map[netip.Addr]int)
}

// choose settles how connections are carried, for good, at the first one.
func (t *tcpFlows) choose() {
	defer close(t.chosen)
	t.carrier = &netstack{flows: t}
	if t.transparent == nil {
		return
	}
	if t.transparent.start() != nil {
		return
	}
	k := &kernelTCP{flows: t}
	for _, l := range t.transparent.listeners {
		t.gate.wg.Go(func() { k.accept(l) })
	}
	t.carrier = k
}

func (t *tcpFlows) segment(p packet) {
	select {
	case <-t.chosen:
		t.carrier.segment(p.ip)
	default: // no connection yet that it could belong to
	}
}

func (t *tcpFlows) close() {
	select {
	case <-t.chosen:
		t.carrier.close()
	default:
	}
}

func (t *tcpFlows) syn(p packet) {
	if t.synAgain(p) {
		return
	}
	v, ok := t.gate.admit(p)
	if !ok {
		return
	}

	src := p.src.Addr()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dials >= maxDials || t.bySource[src] >= maxDialsSource {
		return
	}
	if t.gate.names.endpoint(src) == nil {
		return // has left since, and end has been here
	}
	t.dials++
	t.bySource[src]++
	f := &tcpFlow{verdict: v, app: make(chan halfCloser, 1), done: make(chan struct{})}
	f.hold(p)
	f.ctx, f.cancel = context.WithCancel(t.gate.ctx)
	t.flows[p.flow] = f
	t.gate.wg.Go(func() { t.serve(f, p.flow) })
	t.choice.Do(func() { t.gate.wg.Go(t.choose) })
}

// synAgain takes a SYN of a flow that is there already; false: there is none.
func (t *tcpFlows) synAgain(p packet) bool {
	t.mu.Lock()
	f := t.flows[p.flow]
	if f == nil {
		t.mu.Unlock()
		return false
	}
	number := header.TCP(p.transport).SequenceNumber()
	switch {
	case !f.passed:
		f.hold(p)
	case !f.joined:
		f.number = number
	case number != f.number:
		// The app's kernel has no such connection any more, or it would not begin another. The old one may not have heard of
		// its end yet, or never will; whatever is left of it must not take the new one's SYN.
		f.next = bytes.Clone(p.ip)
		f.cancel()
	}
	passed := f.passed && f.next == nil
	t.mu.Unlock()
	if passed {
		<-t.chosen
		t.carrier.syn(p.ip)
	}
	return true
}

// hold keeps a SYN beyond the reader's buffer.
func (f *tcpFlow) hold(p packet) {
	p.ip = bytes.Clone(p.ip)
	p.transport = p.ip[len(p.ip)-len(p.transport):]
	f.syn, f.number = p, header.TCP(p.transport).SequenceNumber()
}

// serve has a flow until its end, and begins the one that is to follow.
func (t *tcpFlows) serve(f *tcpFlow, key flow) {
	defer close(f.done)
	t.carry(f, key)
	t.forget(key, f)
	t.mu.Lock()
	next := f.next
	t.mu.Unlock()
	if p, err := parsePacket(next); err == nil && t.gate.ctx.Err() == nil {
		t.syn(p)
	}
}

func (t *tcpFlows) carry(f *tcpFlow, key flow) {
	defer f.cancel()
	log := t.gate.flowlog.begin(key)
	defer log.end()
	t.mu.Lock()
	f.log = log
	t.mu.Unlock()
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
	c, err := d.DialContext(f.ctx, "tcp", key.dst.String())
	host, _ := c.(*net.TCPConn)
	if host != nil {
		// At the host's intervals, tcp(7). The app's own probes end here and say nothing about the peer.
		_ = host.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1}) // fails on a closed socket only
	}
	<-t.chosen

	made := sync.OnceFunc(func() { t.dialled(key.src.Addr()) })
	defer made()

	t.mu.Lock()
	// The policy looked before; an address may have become the host's own since.
	self := err == nil && ownAddress(host, key.dst.Addr()) && !f.verdict.host
	p := f.syn
	if f.passed = err == nil && !self; !f.passed {
		delete(t.flows, key)
	}
	t.mu.Unlock()

	switch {
	case err != nil:
		t.refuse(p, err)
		log.fail(err)
		return
	case self:
		host.Close()
		t.gate.answer(resetPacket(p))
		log.deny(becameHost)
		return
	}
	t.carrier.syn(p.ip)
	app := t.awaitApp(f, key)
	made()
	if app != nil {
		t.inspect(f, p, app, host, log)
	} else {
		reset(host)
		log.fail(errAppGone)
	}
}

// dialled counts a connection of a sandbox as made, or not to be made.
func (t *tcpFlows) dialled(src netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dials--
	if t.bySource[src]--; t.bySource[src] == 0 {
		delete(t.bySource, src)
	}
}

// relay joins the two halves: in a loop if both are the kernel's. It returns how many bytes the app has sent and received.
func (t *tcpFlows) relay(ctx context.Context, app halfCloser, host *net.TCPConn) (sent, received int64) {
	if app, ok := app.(*net.TCPConn); ok {
		return relayKernel(ctx, t.loops, app, host)
	}
	return relay(ctx, app, host)
}

// awaitApp waits for the app's half; nil means that the app has gone.
func (t *tcpFlows) awaitApp(f *tcpFlow, key flow) halfCloser {
	timeout := time.NewTimer(handshakeTimeout)
	defer timeout.Stop()
	select {
	case app := <-f.app:
		return app
	case <-timeout.C:
	case <-f.ctx.Done():
	}
	t.forget(key, f)
	select {
	case app := <-f.app: // came between
		return app
	default:
		return nil
	}
}

// join gives the app's half of a flow to its goroutine, nil if the handshake has failed. It reports false, and the
// connection stays the caller's, if nobody waits for it.
func (t *tcpFlows) join(key flow, app halfCloser) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.flows[key]
	if f == nil || !f.passed || f.joined {
		return false
	}
	f.joined = true
	f.app <- app // has room for this one
	return true
}

// has reports whether a connection is being made or relayed.
func (t *tcpFlows) has(key flow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.flows[key] != nil
}

// forget takes a flow off the table; another may have its place already.
func (t *tcpFlows) forget(key flow, f *tcpFlow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flows[key] == f {
		delete(t.flows, key)
	}
}

// end resets every connection of a sandbox that is leaving, and returns when that is done: a socket that is never told
// would keep the sandbox's namespace for minutes.
func (t *tcpFlows) end(src netip.Addr) {
	var ended []*tcpFlow
	t.mu.Lock()
	for key, f := range t.flows {
		if key.src.Addr() == src {
			f.cancel()
			ended = append(ended, f)
		}
	}
	t.mu.Unlock()
	for _, f := range ended {
		<-f.done
	}
}

// endWhere resets the connections to addresses that have become the host's.
func (t *tcpFlows) endWhere(gone func(flow) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, f := range t.flows {
		if f.log != nil && gone(key) {
			f.log.deny(becameHost)
			f.cancel()
		}
	}
}

// ownAddress reports whether a socket that is connected to dst has that address itself, or does not tell.
func ownAddress(c net.Conn, dst netip.Addr) bool {
	var local net.IP
	switch a := c.LocalAddr().(type) {
	case *net.TCPAddr:
		local = a.IP
	case *net.UDPAddr:
		local = a.IP
	}
	return local == nil || local.Equal(dst.AsSlice())
}

// refuse tells the app why there is no connection.
func (t *tcpFlows) refuse(p packet, err error) {
	switch why, ok := unreachableBecause(err); {
	case ok:
		if errors.Is(err, unix.ETIMEDOUT) {
			pause(t.gate.ctx, giveUpLater)
		}
		// Linux drops an ICMP error for a socket that a system call is busy with (LockDroppedIcmps), which connect(2) is
		// while it sends the SYN. A second one too many is ignored.
		for _, wait := range [...]time.Duration{time.Millisecond, 20 * time.Millisecond} {
			select {
			case <-time.After(wait):
				t.gate.answer(unreachablePacket(p, why))
			case <-t.gate.ctx.Done():
				return
			}
		}
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET):
		t.gate.answer(resetPacket(p))
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS):
		t.gate.log.Warn("connection not made: the host is out of descriptors or memory", "to", p.dst, "err", err)
	case t.gate.ctx.Err() == nil:
		t.gate.log.Debug("connection not made", "to", p.dst, "err", err)
	}
}

// unreachableBecause is the ICMP reason that makes an app's kernel report err, if there is one (icmp_err_convert, and
// icmpv6_err_convert in the kernel). A route that is a black hole (EINVAL) stays one.
func unreachableBecause(err error) (unreachable, bool) {
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, unix.EAFNOSUPPORT):
		return noRoute, true
	case errors.Is(err, unix.ENOPROTOOPT):
		return noProtocol, true
	case errors.Is(err, unix.EOPNOTSUPP):
		return noSourceRoute, true
	case errors.Is(err, unix.EHOSTDOWN):
		return noSuchHost, true
	case errors.Is(err, unix.ENONET):
		return isolated, true
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EPROTO), errors.Is(err, unix.ETIMEDOUT):
		return noHost, true // nothing in ICMP says that nobody answered, and the host may give up sooner than the app
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return prohibited, true // a firewall of the host's
	}
	return 0, false
}
