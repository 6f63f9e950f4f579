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
)

const (
	// maxDials bounds connections being made, in all and for one sandbox: each try of a port scan of addresses that never
	// answer holds a descriptor and a goroutine, and so does each SYN of an app that makes its own and takes no answer
	// (CAP_NET_RAW). Above it SYNs are dropped, and the app's kernel sends them again.
	maxDials       = 2048
	maxDialsSource = 512

	// dialTimeout is longer than Linux tries to connect (tcp_syn_retries = 6: 127 s), so that an app learns of a silent
	// peer from its own kernel, as ETIMEDOUT.
	dialTimeout = 130 * time.Second

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
	passed  bool            // the host is connected: SYNs go on to the carrier
	app     chan halfCloser // the app's half, once; nil if there will be none
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
	t.mu.Lock()
	f, passed := t.flows[p.flow], false
	if f != nil {
		passed = f.passed
	}
	t.mu.Unlock()
	if passed {
		<-t.chosen
		t.carrier.syn(p.ip)
	}
	if f != nil {
		return // a held SYN was sent again
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
	f = &tcpFlow{verdict: v, app: make(chan halfCloser, 1), done: make(chan struct{})}
	f.ctx, f.cancel = context.WithCancel(t.gate.ctx)
	t.flows[p.flow] = f
	p.ip = bytes.Clone(p.ip) // the reader's buffer is used again
	p.transport = p.ip[len(p.ip)-len(p.transport):]
	t.gate.wg.Go(func() { t.serve(f, p) })
	t.choice.Do(func() { t.gate.wg.Go(t.choose) })
}

func (t *tcpFlows) serve(f *tcpFlow, p packet) {
	defer close(f.done)
	defer f.cancel()
	log := t.gate.flowlog.begin(p.flow)
	defer log.end()
	t.mu.Lock()
	f.log = log
	t.mu.Unlock()
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
	c, err := d.DialContext(f.ctx, "tcp", p.dst.String())
	host, _ := c.(*net.TCPConn)
	if host != nil {
		// At the host's intervals, tcp(7). The app's own probes end here and say nothing about the peer.
		_ = host.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1}) // fails on a closed socket only
	}
	<-t.chosen

	made := sync.OnceFunc(func() { t.dialled(p.src.Addr()) })
	defer made()

	t.mu.Lock()
	// The policy looked before; an address may have become the host's own since.
	self := err == nil && ownAddress(host, p.dst.Addr()) && !f.verdict.host
	if f.passed = err == nil && !self; !f.passed {
		delete(t.flows, p.flow)
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
	app := t.awaitApp(f, p.flow)
	made()
	if app != nil {
		t.inspect(f, p, app, host, log)
	} else {
		reset(host)
		log.fail(errAppGone)
	}
	t.forget(p.flow)
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
	t.forget(key)
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
	if f == nil || !f.passed {
		return false
	}
	select {
	case f.app <- app:
		return true
	default:
		return false
	}
}

// has reports whether a connection is being made or relayed.
func (t *tcpFlows) has(key flow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.flows[key] != nil
}

func (t *tcpFlows) forget(key flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.flows, key)
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

// unreachableBecause is the ICMP reason that makes an app's kernel report err, if there is one.
func unreachableBecause(err error) (unreachable, bool) {
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, unix.EAFNOSUPPORT):
		return noRoute, true
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EHOSTDOWN), errors.Is(err, unix.ETIMEDOUT):
		return noHost, true // nothing in ICMP says that nobody answered, and the host may give up sooner than the app
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return prohibited, true // a firewall of the host's
	}
	return 0, false
}
