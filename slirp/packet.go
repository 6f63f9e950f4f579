package slirp

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	protoICMP   = uint8(header.ICMPv4ProtocolNumber)
	protoTCP    = uint8(header.TCPProtocolNumber)
	protoUDP    = uint8(header.UDPProtocolNumber)
	protoICMPv6 = uint8(header.ICMPv6ProtocolNumber)
	protoSCTP   = uint8(132) // not carried, but known by name
	protoGRE    = uint8(47)

	// answerTTL is the hop limit of packets made here, Linux's default.
	answerTTL = 64
)

// packet is one IP packet as parsed by parsePacket. Its slices are parts of the bytes parsed.
type packet struct {
	flow
	ip        []byte // the whole packet
	transport []byte // from the transport header on, to the packet's true end
	later     bool   // a fragment that is not the first
}

var (
	errPacket   = errors.New("malformed packet")
	errFragment = errors.New("fragment")
	errProtocol = errors.New("protocol that is not carried")
)

// parsePacket reads the headers of an IPv4 or IPv6 packet. Fragments are refused: links of 65,535 bytes make none
// that an app did not ask for. Checksums are not looked at, since what comes from the kernel of the same machine was
// either never on a wire or not summed yet. What is refused with errFragment or errProtocol has its addresses, no ports.
func parsePacket(b []byte) (packet, error) {
	if len(b) < header.IPv4MinimumSize {
		return packet{}, errPacket
	}
	switch b[0] >> 4 {
	case 4:
		return parseIPv4(b)
	case 6:
		return parseIPv6(b)
	}
	return packet{}, errPacket
}

func parseIPv4(b []byte) (packet, error) {
	h := header.IPv4(b)
	hlen, total := int(h.HeaderLength()), int(h.TotalLength())
	if hlen < header.IPv4MinimumSize || total < hlen || total > len(b) {
		return packet{}, errPacket
	}
	p := packet{ip: b[:total], transport: b[hlen:total]}
	p.proto = h.Protocol()
	p.src, p.dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), 0), netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:20])), 0)
	if h.More() || h.FragmentOffset() != 0 {
		p.later = h.FragmentOffset() != 0
		return p, errFragment
	}
	return p.withPorts()
}

func parseIPv6(b []byte) (packet, error) {
	if len(b) < header.IPv6MinimumSize {
		return packet{}, errPacket
	}
	total := header.IPv6MinimumSize + int(binary.BigEndian.Uint16(b[4:6]))
	if total > len(b) {
		return packet{}, errPacket
	}
	p := packet{ip: b[:total]}
	p.src, p.dst = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), 0), netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[24:40])), 0)
	next, at := b[6], header.IPv6MinimumSize
	for {
		switch header.IPv6ExtensionHeaderIdentifier(next) {
		case header.IPv6HopByHopOptionsExtHdrIdentifier, header.IPv6RoutingExtHdrIdentifier, header.IPv6DestinationOptionsExtHdrIdentifier:
			if at+8 > total {
				return packet{}, errPacket
			}
			next, at = b[at], at+8+8*int(b[at+1])
			if at > total {
				return packet{}, errPacket
			}
			continue
		case header.IPv6FragmentExtHdrIdentifier:
			if at+8 > total {
				return packet{}, errPacket
			}
			p.proto, p.transport = b[at], b[at+8:total]
			p.later = binary.BigEndian.Uint16(b[at+2:])>>3 != 0
			return p, errFragment
		}
		break
	}
	p.proto, p.transport = next, b[at:total]
	return p.withPorts()
}

func (p packet) withPorts() (packet, error) {
	t, src, dst := p.transport, p.src.Addr(), p.dst.Addr()
	var sport, dport uint16
	switch {
	case p.proto == protoTCP:
		if len(t) < header.TCPMinimumSize || int(t[12]>>4)*4 < header.TCPMinimumSize || int(t[12]>>4)*4 > len(t) {
			return packet{}, errPacket
		}
		sport, dport = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
	case p.proto == protoUDP:
		if len(t) < header.UDPMinimumSize {
			return packet{}, errPacket
		}
		n := int(binary.BigEndian.Uint16(t[4:]))
		if n < header.UDPMinimumSize || n > len(t) {
			return packet{}, errPacket
		}
		p.transport = t[:n]
		sport, dport = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
	case p.proto == protoICMP && src.Is4(), p.proto == protoICMPv6 && src.Is6():
		if len(t) < header.ICMPv4MinimumSize {
			return packet{}, errPacket
		}
		if !isEchoRequest(p.proto, t) {
			return p, errProtocol
		}
		sport = binary.BigEndian.Uint16(t[4:])
	default:
		return p, errProtocol
	}
	p.src, p.dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return p, nil
}

// mayBeAnswered reports whether an ICMP error may answer a packet that is not carried: never another error, nor a fragment
// that is not the first (RFC 1122 §3.2.2, RFC 4443 §2.4).
func (p packet) mayBeAnswered() bool {
	switch {
	case p.later:
		return false
	case p.proto == protoICMP:
		kind := header.ICMPv4Echo // a fragment of a ping's may be too short to say
		if len(p.transport) > 0 {
			kind = header.ICMPv4Type(p.transport[0])
		}
		return kind != header.ICMPv4DstUnreachable && kind != header.ICMPv4SrcQuench && kind != header.ICMPv4Redirect && kind != header.ICMPv4TimeExceeded && kind != header.ICMPv4ParamProblem
	case p.proto == protoICMPv6:
		return len(p.transport) > 0 && p.transport[0] >= 128 // errors are below, RFC 4443 §2.1
	}
	return true
}

func isEchoRequest(proto uint8, t []byte) bool {
	return t[1] == 0 && (proto == protoICMP && t[0] == uint8(header.ICMPv4Echo) || proto == protoICMPv6 && t[0] == uint8(header.ICMPv6EchoRequest))
}

func tcpipAddr(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

// ipPacket returns a packet from src to dst with room for n bytes behind its IP header, and that room.
func ipPacket(proto uint8, src, dst netip.Addr, n int) (ip, transport []byte) {
	if src.Is4() {
		b := make([]byte, header.IPv4MinimumSize+n)
		h := header.IPv4(b)
		h.Encode(&header.IPv4Fields{TotalLength: uint16(len(b)), TTL: answerTTL, Protocol: proto, SrcAddr: tcpipAddr(src), DstAddr: tcpipAddr(dst)})
		h.SetChecksum(^h.CalculateChecksum())
		return b, b[header.IPv4MinimumSize:]
	}
	b := make([]byte, header.IPv6MinimumSize+n)
	header.IPv6(b).Encode(&header.IPv6Fields{PayloadLength: uint16(n), TransportProtocol: tcpip.TransportProtocolNumber(proto),
		HopLimit: answerTTL, SrcAddr: tcpipAddr(src), DstAddr: tcpipAddr(dst)})
	return b, b[header.IPv6MinimumSize:]
}

func transportChecksum(proto uint8, src, dst netip.Addr, transport []byte) uint16 {
	x := header.PseudoHeaderChecksum(tcpip.TransportProtocolNumber(proto), tcpipAddr(src), tcpipAddr(dst), uint16(len(transport)))
	return ^checksum.Checksum(transport, x)
}

// udpPacket is a datagram. The payload is at most 65,507 bytes over IPv4 and 65,487 over IPv6 (linkMTU), else nil.
func udpPacket(src, dst netip.AddrPort, payload []byte) []byte {
	limit := linkMTU - header.UDPMinimumSize - header.IPv4MinimumSize
	if src.Addr().Is6() {
		limit = linkMTU - header.UDPMinimumSize - header.IPv6MinimumSize
	}
	if len(payload) > limit {
		return nil
	}
	ip, t := ipPacket(protoUDP, src.Addr(), dst.Addr(), header.UDPMinimumSize+len(payload))
	header.UDP(t).Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(len(t))})
	copy(t[header.UDPMinimumSize:], payload)
	sum := transportChecksum(protoUDP, src.Addr(), dst.Addr(), t)
	if sum == 0 {
		sum = 0xffff // RFC 768: zero means that there is none
	}
	header.UDP(t).SetChecksum(sum)
	return ip
}

// resetPacket is the answer of a closed port to the SYN in p (RFC 9293 §3.5.2).
func resetPacket(p packet) []byte {
	ip, t := ipPacket(protoTCP, p.dst.Addr(), p.src.Addr(), header.TCPMinimumSize)
	header.TCP(t).Encode(&header.TCPFields{SrcPort: p.dst.Port(), DstPort: p.src.Port(), AckNum: header.TCP(p.transport).SequenceNumber() + 1,
		DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagRst | header.TCPFlagAck})
	header.TCP(t).SetChecksum(transportChecksum(protoTCP, p.dst.Addr(), p.src.Addr(), t))
	return ip
}

// strayReset is the answer to a segment that belongs to no connection (RFC 9293 §3.10.7.1); nil if it is a reset itself.
func strayReset(p packet) []byte {
	in := header.TCP(p.transport)
	if in.Flags()&header.TCPFlagRst != 0 {
		return nil
	}
	ip, t := ipPacket(protoTCP, p.dst.Addr(), p.src.Addr(), header.TCPMinimumSize)
	f := header.TCPFields{SrcPort: p.dst.Port(), DstPort: p.src.Port(), DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagRst}
	if in.Flags()&header.TCPFlagAck != 0 {
		f.SeqNum = in.AckNumber()
	} else {
		f.Flags |= header.TCPFlagAck
		f.AckNum = in.SequenceNumber() + uint32(len(in.Payload()))
		if in.Flags()&header.TCPFlagSyn != 0 {
			f.AckNum++
		}
		if in.Flags()&header.TCPFlagFin != 0 {
			f.AckNum++
		}
	}
	header.TCP(t).Encode(&f)
	header.TCP(t).SetChecksum(transportChecksum(protoTCP, p.dst.Addr(), p.src.Addr(), t))
	return ip
}

// unreachable is why a packet could not be delivered.
type unreachable uint8

const (
	noRoute unreachable = iota
	noHost
	noPort
	prohibited
	// What only IPv4's ICMP says:
	noProtocol
	noSourceRoute
	noSuchHost
	isolated
)

// unreachableCodes are their codes in ICMP (RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1) and ICMPv6 (RFC 4443 §3.1).
var unreachableCodes = [...]struct{ v4, v6 uint8 }{
	noRoute:       {0, 0},
	noHost:        {1, 3},
	noPort:        {3, 4},
	prohibited:    {13, 1},
	noProtocol:    {2, 3},
	noSourceRoute: {5, 3},
	noSuchHost:    {7, 3},
	isolated:      {8, 3},
}

// unreachablePacket is the ICMP error for p, said in its destination's name (RFC 1812 §4.3.2, RFC 4443 §3.1).
func unreachablePacket(p packet, why unreachable) []byte {
	src, dst := p.dst.Addr(), p.src.Addr()
	if src.Is4() {
		quote := p.ip[:min(len(p.ip), 576-header.IPv4MinimumSize-header.ICMPv4MinimumSize)]
		ip, t := ipPacket(protoICMP, src, dst, header.ICMPv4MinimumSize+len(quote))
		t[0] = uint8(header.ICMPv4DstUnreachable)
		t[1] = unreachableCodes[why].v4
		copy(t[header.ICMPv4MinimumSize:], quote)
		binary.BigEndian.PutUint16(t[2:], ^checksum.Checksum(t, 0))
		return ip
	}
	quote := p.ip[:min(len(p.ip), 1280-header.IPv6MinimumSize-header.ICMPv6MinimumSize)]
	ip, t := ipPacket(protoICMPv6, src, dst, header.ICMPv6MinimumSize+len(quote))
	t[0] = uint8(header.ICMPv6DstUnreachable)
	t[1] = unreachableCodes[why].v6
	copy(t[header.ICMPv6MinimumSize:], quote)
	binary.BigEndian.PutUint16(t[2:], transportChecksum(protoICMPv6, src, dst, t))
	return ip
}

// echoReply answers the echo request whose addresses are f's with a host's reply: everything behind the identifier, i.e.
// the sequence number and the data.
func echoReply(f flow, rest []byte) []byte {
	if len(rest) < 2 || len(rest) > linkMTU-header.IPv6MinimumSize-6 {
		return nil
	}
	ip, t := ipPacket(f.proto, f.dst.Addr(), f.src.Addr(), 6+len(rest))
	t[0] = uint8(header.ICMPv4EchoReply)
	if f.proto == protoICMPv6 {
		t[0] = uint8(header.ICMPv6EchoReply)
	}
	binary.BigEndian.PutUint16(t[4:], f.src.Port())
	copy(t[6:], rest)
	sum := ^checksum.Checksum(t, 0)
	if f.proto == protoICMPv6 {
		sum = transportChecksum(protoICMPv6, f.dst.Addr(), f.src.Addr(), t)
	}
	binary.BigEndian.PutUint16(t[2:], sum)
	return ip
}
