package slirp

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	stackNIC = 1

	// Buffers of one connection in the stack. The link has no delay and loses nothing in a queue of its own, so a few
	// segments of the link's size are enough; the packet socket's queue is what bounds it.
	stackReceiveBuffer = 1 << 20
	stackSendBuffer    = 1 << 20
)

// netstack carries TCP with gVisor's user-mode stack. The stack is made for the first connection: many sandboxes never
// open one, and it costs a few MB.
type netstack struct {
	flows *tcpFlows

	mu     sync.Mutex
	link   *stackLink // nil before the first connection and after close
	stack  *stack.Stack
	closed bool
}

func (n *netstack) syn(ip []byte) {
	n.mu.Lock()
	if n.stack == nil && !n.closed {
		if err := n.start(); err != nil {
			n.flows.gate.log.Error("starting the user-mode stack", "err", err)
		}
	}
	n.mu.Unlock()
	n.segment(ip)
}

func (n *netstack) segment(ip []byte) {
	n.mu.Lock()
	link := n.link
	n.mu.Unlock()
	if link != nil {
		link.inject(ip)
	}
}

// start makes the stack: one interface that answers for every address, and TCP on it.
func (n *netstack) start() error {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: stackReceiveBuffer, Max: 4 << 20}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: stackSendBuffer, Max: 4 << 20}
	// A port may be used again at once: nothing is delayed or reordered on this link, so no old segment can turn up.
	wait := tcpip.TCPTimeWaitTimeoutOption(0)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &receive, &send, &wait} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return tcpipError{err}
		}
	}
	link := &stackLink{up: n.flows.gate.up}
	if err := s.CreateNIC(stackNIC, link); err != nil {
		return tcpipError{err}
	}
	if err := s.SetPromiscuousMode(stackNIC, true); err != nil {
		return tcpipError{err}
	}
	if err := s.SetSpoofing(stackNIC, true); err != nil {
		return tcpipError{err}
	}
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: stackNIC}, {Destination: header.IPv6EmptySubnet, NIC: stackNIC}})
	// Its limit is on handshakes under way, all of them joined flows: the limit on dials has bounded them before.
	forwarder := tcp.NewForwarder(s, stackReceiveBuffer, maxDials, n.accept)
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, forwarder.HandlePacket)
	n.stack, n.link = s, link
	return nil
}

// tcpipError is an error of the stack's.
type tcpipError struct{ reason tcpip.Error }

func (e tcpipError) Error() string { return e.reason.String() }

// accept completes a handshake. It runs on a goroutine of the stack's.
func (n *netstack) accept(r *tcp.ForwarderRequest) {
	id := r.ID()
	f := flow{proto: protoTCP, src: addrPort(id.RemoteAddress, id.RemotePort), dst: addrPort(id.LocalAddress, id.LocalPort)}
	var wq waiter.Queue
	ep, err := r.CreateEndpoint(&wq)
	r.Complete(err != nil)
	if err != nil {
		n.flows.join(f, nil)
		return
	}
	app := &stackConn{TCPConn: gonet.NewTCPConn(&wq, ep), ep: ep, wq: &wq}
	if !n.flows.join(f, app) {
		reset(app)
	}
}

// stackConn is a connection of the stack's.
type stackConn struct {
	*gonet.TCPConn
	ep tcpip.Endpoint
	wq *waiter.Queue
	// ended is set when the stack has been told that no more is sent.
	ended atomic.Bool
}

// resetCheck is how often the stack is asked about an app that has ended its sending side: it tells nobody of a reset then.
const resetCheck = 250 * time.Millisecond

// CloseWrite ends the sending side.
func (c *stackConn) CloseWrite() error {
	c.ended.Store(true)
	return c.TCPConn.CloseWrite()
}

// await returns when there is something to read, be it the end or an error.
func (c *stackConn) await() error {
	entry, events := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp | waiter.EventRdHUp)
	c.wq.EventRegister(&entry)
	defer c.wq.EventUnregister(&entry)
	for c.ep.Readiness(entry.Mask()) == 0 {
		<-events
	}
	return nil
}

func (c *stackConn) reset() { c.ep.Abort() }

// failed waits for an error of the connection's; see the function of the name.
func (c *stackConn) failed(over <-chan struct{}) bool {
	entry, events := waiter.NewChannelEntry(waiter.EventErr | waiter.EventHUp | waiter.EventRdHUp)
	c.wq.EventRegister(&entry)
	defer c.wq.EventUnregister(&entry)
	for {
		var check <-chan time.Time
		switch tcp.EndpointState(c.ep.State()) {
		case tcp.StateError:
			return true
		case tcp.StateClose: // by a reset, if not by both ends having been sent
			return !c.ended.Load()
		case tcp.StateCloseWait:
			check = time.After(resetCheck)
		}
		select {
		case <-events:
		case <-check:
		case <-over:
			return false
		}
	}
}

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(a.AsSlice())
	return netip.AddrPortFrom(ip, port)
}

func (n *netstack) close() {
	n.mu.Lock()
	s := n.stack
	n.stack, n.link, n.closed = nil, nil, true
	n.mu.Unlock()
	if s == nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Destroy()
	}()
	for {
		select {
		case <-done:
			return
		case <-time.After(abortAgain):
		}
		// A handshake that began between its looking for connections to abort and its waiting for their ends would be waited
		// for until its own time runs out, minutes later.
		for _, e := range s.RegisteredEndpoints() {
			e.Abort()
		}
	}
}

// abortAgain is how often what is left is aborted while the stack ends.
const abortAgain = 20 * time.Millisecond

// stackLink is the stack's side of the uplink. It leaves segmentation and checksums to the kernel.
type stackLink struct {
	up *uplink

	mu         sync.RWMutex
	dispatcher stack.NetworkDispatcher
}

var (
	_ stack.LinkEndpoint = (*stackLink)(nil)
	_ stack.GSOEndpoint  = (*stackLink)(nil)
)

// inject copies a packet from the uplink into the stack.
func (l *stackLink) inject(ip []byte) {
	l.mu.RLock()
	d := l.dispatcher
	l.mu.RUnlock()
	if d == nil {
		return
	}
	proto := header.IPv4ProtocolNumber
	if ip[0]>>4 == 6 {
		proto = header.IPv6ProtocolNumber
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(ip)})
	pkt.RXChecksumValidated = true
	d.DeliverNetworkPacket(proto, pkt)
	pkt.DecRef()
}

// WritePackets sends the stack's packets to the router.
func (l *stackLink) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for i, pkt := range pkts.AsSlice() {
		var o offload
		if g := pkt.GSOOptions; g.Type != stack.GSONone {
			o.needsChecksum, o.checksumStart, o.checksumAt = g.NeedsCsum, g.L3HdrLen, g.CsumOffset
			o.headerLen = uint16(pkt.HeaderSize())
			if pkt.Data().Size() > int(g.MSS) {
				o.segmentSize, o.segmentType = g.MSS, vnetTCPv4
				if g.Type == stack.GSOTCPv6 {
					o.segmentType = vnetTCPv6
				}
			}
		}
		if err := l.up.write(o, pkt.AsSlices()...); err != nil {
			return i, &tcpip.ErrAborted{}
		}
	}
	return pkts.Len(), nil
}

// Attach connects the link to the stack, nil takes it away.
func (l *stackLink) Attach(d stack.NetworkDispatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatcher = d
}

// IsAttached reports whether the stack listens.
func (l *stackLink) IsAttached() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.dispatcher != nil
}

// Capabilities says that checksums need not be looked at.
func (l *stackLink) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// SupportedGSO says that the kernel cuts large segments.
func (l *stackLink) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// GSOMaxSize is the largest packet, in bytes, that the kernel cuts.
func (l *stackLink) GSOMaxSize() uint32 { return linkMTU }

// MTU is the link's, in bytes.
func (l *stackLink) MTU() uint32 { return linkMTU }

// The rest of stack.LinkEndpoint has nothing to do on a link without addresses that the gate reads.

// SetMTU does nothing.
func (l *stackLink) SetMTU(uint32) {}

// MaxHeaderLength is 0: the frame's header is added when it is written.
func (l *stackLink) MaxHeaderLength() uint16 { return 0 }

// LinkAddress is empty.
func (l *stackLink) LinkAddress() tcpip.LinkAddress { return "" }

// SetLinkAddress does nothing.
func (l *stackLink) SetLinkAddress(tcpip.LinkAddress) {}

// Wait returns at once: the link has no goroutine of its own.
func (l *stackLink) Wait() {}

// ARPHardwareType says that there is no ARP.
func (l *stackLink) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// AddHeader does nothing.
func (l *stackLink) AddHeader(*stack.PacketBuffer) {}

// ParseHeader accepts every packet.
func (l *stackLink) ParseHeader(*stack.PacketBuffer) bool { return true }

// Close does nothing: the uplink belongs to the network.
func (l *stackLink) Close() {}

// SetOnCloseAction does nothing.
func (l *stackLink) SetOnCloseAction(func()) {}
