package slirp

import (
	"errors"
	"net"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// kernelTCP carries TCP in the kernel. A SYN whose destination is connected is put back on the uplink, where the router's
// kernel takes it for the transparent listener's: it completes the handshake with the app as if it were the
// destination, and all that follows of the connection stays in the kernel.
type kernelTCP struct {
	flows *tcpFlows
}

// accept takes completed connections and gives them to their flows.
func (k *kernelTCP) accept(l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			k.flows.gate.log.Warn("connection of an app not taken", "err", err)
			pause(k.flows.gate.ctx, acceptPause)
			continue
		}
		dst := c.LocalAddr().(*net.TCPAddr).AddrPort()
		src := c.RemoteAddr().(*net.TCPAddr).AddrPort()
		if !k.flows.join(flow{proto: protoTCP, src: src, dst: dst}, c) {
			reset(c) // its flow has ended meanwhile
		}
	}
}

func (k *kernelTCP) syn(ip []byte) {
	p, err := parsePacket(ip)
	if err != nil {
		return
	}
	// The kernel has left the sum half done for the device, packet(7), and the hop limit has changed since.
	sum := header.TCP(p.transport)
	sum.SetChecksum(0)
	sum.SetChecksum(transportChecksum(protoTCP, p.src.Addr(), p.dst.Addr(), p.transport))
	k.flows.gate.answer(p.ip)
}

// segment answers what belongs to no connection any more, as the destination's kernel would. Linux can miss a socket for
// the moment in which one that is connected takes the place of its request: what comes for a flow that is there is
// lost, not answered, and the app's kernel sends it again.
func (k *kernelTCP) segment(ip []byte) {
	p, err := parsePacket(ip)
	if err == nil && !k.flows.has(p.flow) {
		k.flows.gate.answer(strayReset(p))
	}
}

func (k *kernelTCP) close() {}
