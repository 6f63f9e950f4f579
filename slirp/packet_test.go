package slirp

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

func pair4() (src, dst netip.AddrPort) {
	return netip.MustParseAddrPort("10.1.2.3:40000"), netip.MustParseAddrPort("192.0.2.1:443")
}

func pair6() (src, dst netip.AddrPort) {
	return netip.MustParseAddrPort("[fd00::3]:40000"), netip.MustParseAddrPort("[2001:db8::1]:443")
}

func synPacket(src, dst netip.AddrPort) []byte {
	ip, t := ipPacket(protoTCP, src.Addr(), dst.Addr(), header.TCPMinimumSize)
	header.TCP(t).Encode(&header.TCPFields{SrcPort: src.Port(), DstPort: dst.Port(), SeqNum: 1000, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagSyn})
	return ip
}

// withHopByHop puts an extension header before the payload of an IPv6 packet.
func withHopByHop(ip []byte) []byte {
	out := append(bytes.Clone(ip[:40]), ip[6], 0, 1, 4, 0, 0, 0, 0)
	out[6] = 0
	out[5] += 8
	return append(out, ip[40:]...)
}

func TestParsePacket(t *testing.T) {
	src4, dst4 := pair4()
	src6, dst6 := pair6()
	fragment := udpPacket(src4, dst4, []byte("x"))
	fragment[6] = 0x20 // more fragments
	cut := udpPacket(src4, dst4, []byte("xyz"))
	for _, c := range []struct {
		name string
		b    []byte
		want flow
		err  error
	}{
		{"IPv4 UDP", udpPacket(src4, dst4, []byte("x")), flow{protoUDP, src4, dst4}, nil},
		{"IPv6 UDP", udpPacket(src6, dst6, []byte("x")), flow{protoUDP, src6, dst6}, nil},
		{"IPv4 SYN", synPacket(src4, dst4), flow{protoTCP, src4, dst4}, nil},
		{"IPv6 SYN behind an extension header", withHopByHop(synPacket(src6, dst6)), flow{protoTCP, src6, dst6}, nil},
		{"padding behind the packet", append(udpPacket(src4, dst4, nil), 0, 0, 0), flow{protoUDP, src4, dst4}, nil},
		{"empty", nil, flow{}, errPacket},
		{"cut short", cut[:len(cut)-1], flow{}, errPacket},
		{"fragment", fragment, flow{}, errFragment},
		{"echo reply", echoReply(flow{protoICMP, src4, dst4}, []byte{0, 1}), flow{}, errProtocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := parsePacket(c.b)
			if !errors.Is(err, c.err) || c.err == nil && p.flow != c.want {
				t.Errorf("got %+v, %v; want %+v, %v", p.flow, err, c.want, c.err)
			}
		})
	}
}

func TestUDPPacketKnowsItsLimit(t *testing.T) {
	src4, dst4 := pair4()
	src6, dst6 := pair6()
	for _, c := range []struct {
		name     string
		src, dst netip.AddrPort
		size     int
		fits     bool
	}{
		{"IPv4 largest", src4, dst4, 65507, true},
		{"IPv4 too large", src4, dst4, 65508, false},
		{"IPv6 largest", src6, dst6, 65487, true},
		{"IPv6 too large", src6, dst6, 65488, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := udpPacket(c.src, c.dst, make([]byte, c.size)); (got != nil) != c.fits || len(got) > linkMTU {
				t.Errorf("packet of %d bytes, fits: want %v", len(got), c.fits)
			}
		})
	}
}

// FuzzPacket reads any bytes, and what is made in answer must be a packet that is as it should be.
func FuzzPacket(f *testing.F) {
	src4, dst4 := pair4()
	src6, dst6 := pair6()
	f.Add(udpPacket(src4, dst4, []byte("x")))
	f.Add(udpPacket(src6, dst6, []byte("x")))
	f.Add(synPacket(src4, dst4))
	f.Add(withHopByHop(synPacket(src6, dst6)))
	ping := echoReply(flow{protoICMP, src4, dst4}, []byte("12345678"))
	ping[20] = byte(header.ICMPv4Echo)
	f.Add(ping)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePacket(b)
		if err == errFragment || err == errProtocol {
			checkAnswer(t, p, unreachablePacket(p, prohibited))
		}
		if err != nil {
			return
		}
		if len(p.ip) > len(b) || len(p.transport) == 0 || !p.src.Addr().IsValid() || p.src.Addr().Is4() != p.dst.Addr().Is4() {
			t.Fatalf("parsed as %+v", p)
		}
		answers := [][]byte{unreachablePacket(p, noRoute), unreachablePacket(p, noHost), unreachablePacket(p, noPort), unreachablePacket(p, prohibited)}
		switch p.proto {
		case protoTCP:
			answers = append(answers, resetPacket(p), strayReset(p))
		case protoUDP:
			answers = append(answers, udpPacket(p.dst, p.src, p.transport[header.UDPMinimumSize:]))
		default:
			answers = append(answers, echoReply(p.flow, p.transport[6:]))
		}
		for i, a := range answers {
			if a == nil && i > 3 {
				continue // too large to send back, or an answer to a reset
			}
			checkAnswer(t, p, a)
		}
	})
}

// checkAnswer looks at an answer with gVisor's eyes.
func checkAnswer(t *testing.T, p packet, a []byte) {
	t.Helper()
	if len(a) > linkMTU {
		t.Fatalf("answer of %d bytes", len(a))
	}
	var proto uint8
	var transport []byte
	if p.src.Addr().Is4() {
		h := header.IPv4(a)
		if !h.IsValid(len(a)) || !h.IsChecksumValid() {
			t.Fatalf("bad IPv4 header: %x", a)
		}
		if h.DestinationAddress() != tcpipAddr(p.src.Addr()) || h.SourceAddress() != tcpipAddr(p.dst.Addr()) {
			t.Fatalf("answer from %s to %s", h.SourceAddress(), h.DestinationAddress())
		}
		proto, transport = h.Protocol(), h.Payload()
	} else {
		h := header.IPv6(a)
		if !h.IsValid(len(a)) || h.DestinationAddress() != tcpipAddr(p.src.Addr()) {
			t.Fatalf("bad IPv6 header: %x", a)
		}
		proto, transport = h.NextHeader(), h.Payload()
	}
	sum := checksum.Checksum(transport, 0)
	if proto != protoICMP {
		sum = ^transportChecksum(proto, p.dst.Addr(), p.src.Addr(), transport)
	}
	if sum != 0xffff {
		t.Fatalf("checksum of protocol %d adds up to %x", proto, sum)
	}
}
