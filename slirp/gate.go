package slirp

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// gate reads the uplink: every packet that leaves the network passes here, the first of each flow before the policy.
//
//	            ┌─ deny ──▶ RST or ICMP
//	uplink ─▶ gate ─ allow ─┬─ TCP ──▶ tcpFlows ──▶ netstack
//	            └─ drop     ├─ UDP ──▶ udpFlows
//	                        └─ ICMP ─▶ echoFlows
type gate struct {
	ctx     context.Context // of the network's life
	log     *slog.Logger
	up      *uplink
	names   *names // whose addresses are
	subnets [2]netip.Prefix
	isHost  func(netip.Addr) bool
	flowlog *flowLog

	tcp  tcpFlows
	udp  udpFlows
	echo echoFlows
	wg   sync.WaitGroup // every goroutine of a flow

	watch sync.Once // begins with the first flow
}

func newGate(ctx context.Context, log *slog.Logger, up *uplink, names *names, subnets [2]netip.Prefix, isHost func(netip.Addr) bool, tr *transparent, lo *loops) *gate {
	g := &gate{ctx: ctx, log: log, up: up, names: names, subnets: subnets, isHost: isHost}
	g.tcp.init(g, tr, lo)
	g.udp.init(g)
	g.echo.init(g)
	return g
}

// run reads packets until the uplink is told to stop.
func (g *gate) run() {
	b, err := newBatch()
	if err != nil {
		g.log.Error("network has no uplink", "err", err)
		return
	}
	defer b.close()
	for {
		n, err := g.up.read(b)
		if err != nil {
			if g.ctx.Err() == nil {
				g.log.Error("network lost its uplink", "err", err)
			}
			return
		}
		for i := range n {
			switch p, err := parsePacket(b.packet(i)); err {
			case nil:
				g.handle(p)
			case errFragment, errProtocol:
				g.uncarried(p, err)
			default: // there is nothing that could be answered
			}
		}
		g.udp.flush()
	}
}

// handle takes one packet; its bytes are the reader's again when it returns, those of a datagram after udpFlows.flush.
func (g *gate) handle(p packet) {
	switch p.proto {
	case protoTCP:
		if flags := header.TCP(p.transport).Flags(); flags&(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst) == header.TCPFlagSyn {
			g.tcp.syn(p)
		} else {
			g.tcp.segment(p)
		}
	case protoUDP:
		g.udp.datagram(p)
	default:
		g.echo.request(p)
	}
}

// uncarried refuses what is of a kind that does not leave.
func (g *gate) uncarried(p packet, err error) {
	e := g.names.endpoint(p.src.Addr())
	dst := p.dst.Addr()
	if e == nil || dst.IsMulticast() || dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || !p.mayBeAnswered() {
		return
	}
	why := "only TCP, UDP and ping leave"
	if err == errFragment {
		why = "fragments do not leave"
	}
	g.log.Debug("egress denied", "app", e.name, "protocol", p.protocol(), "from", p.src, "to", p.dst, "why", why)
	g.flowlog.denied(p.flow, why)
	g.answer(unreachablePacket(p, prohibited))
}

// admit asks the policy of the sandbox about a flow's first packet and answers it if the flow may not be.
func (g *gate) admit(p packet) (verdict, bool) {
	e := g.names.endpoint(p.src.Addr())
	if e == nil {
		return verdict{action: drop, why: "no sandbox has this source"}, false
	}
	g.watch.Do(g.watchHost)
	now := time.Now()
	v := decide(e.egress, g.subnets, p.flow, e.known.names(now, p.dst.Addr()), g.isHost)
	switch v.action {
	case allow:
		if v.byName {
			e.known.use(now, p.dst.Addr(), v.name)
		}
		return v, true
	case deny:
		g.log.Debug("egress denied", "app", e.name, "protocol", p.protocol(), "from", p.src, "to", p.dst, "name", v.name, "why", v.why)
		g.flowlog.denied(p.flow, v.why)
		if p.proto == protoTCP {
			g.answer(resetPacket(p))
		} else {
			g.answer(unreachablePacket(p, prohibited))
		}
	}
	return v, false
}

// answer puts a packet made here on the link.
func (g *gate) answer(ip []byte) {
	if ip == nil {
		return
	}
	if err := g.up.write(offload{}, ip); err != nil && g.ctx.Err() == nil {
		g.log.Debug("packet not delivered", "err", err)
	}
}

// endSource ends the flows of a sandbox that is gone.
func (g *gate) endSource(addrs ...netip.Addr) {
	for _, a := range addrs {
		ours := func(f flow) bool { return f.src.Addr() == a }
		g.tcp.end(a)
		g.udp.flows.endWhere(ours, "")
		g.echo.flows.endWhere(ours, "")
	}
}

// close ends every flow and the uplink. The context has ended, and run has returned, so that no flow is new.
func (g *gate) close() {
	g.udp.flows.close()
	g.echo.flows.close()
	g.wg.Wait() // relays reset both halves when the context ends
	g.tcp.close()
	g.up.close()
}
