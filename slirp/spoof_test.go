package slirp

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// TestNoSandboxEndsAnothersConnection sends what an attacker would send who knows everything: resets with the very
// addresses and sequence number of another sandbox's connection, which whisk's transparent socket in the router has.
func TestNoSandboxEndsAnothersConnection(t *testing.T) {
	inet := internet(t)
	n := newNetwork(t)
	attacker, _ := newSandbox(t, n, "attacker")
	// The rules that let transparent sockets work come with the first connection: one sandbox is there before, one after.
	warm := inet.echoTCP("tcp", at(inetV4, 0))
	roundTrip(t, attacker.mustDial("tcp", warm.String()), []byte("x"))
	victim := newNamespace(t)
	e, err := n.Attach(context.Background(), AttachOptions{NetNS: victim.fd, Name: "victim"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	late, _ := newSandbox(t, n, "late")
	for _, remote := range []string{inetV4, inetV6} {
		t.Run(remote, func(t *testing.T) {
			a := inet.echoTCP("tcp", at(remote, 0))
			c := victim.mustDial("tcp", a.String())
			roundTrip(t, c, []byte("first"))
			packets := capture(t, victim, func() { roundTrip(t, c, []byte("second")) })
			var last packet
			var next uint32
			for _, b := range packets {
				p, err := parsePacket(b)
				if err != nil || p.proto != protoTCP {
					continue
				}
				h := header.TCP(p.transport)
				last, next = p, h.SequenceNumber()+uint32(len(p.transport)-int(h.DataOffset()))
			}
			if last.ip == nil {
				t.Fatal("no packet of the connection was captured")
			}
			for _, from := range []*namespace{attacker, late} {
				from.sendRaw(forgedReset(last, next), netip.MustParseAddr(remote))
			}
			time.Sleep(200 * time.Millisecond)
			if _, err := c.Write([]byte("third")); err != nil {
				t.Fatalf("another sandbox has ended the connection: %v", err)
			}
			b := make([]byte, 5)
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if m, err := c.Read(b); err != nil || string(b[:m]) != "third" {
				t.Fatalf("another sandbox has ended the connection: got %q, %v", b[:m], err)
			}
			// The forgery is a good one: from the sandbox itself it does end the connection.
			victim.sendRaw(forgedReset(last, next+5), netip.MustParseAddr(remote))
			_ = c.SetDeadline(time.Now().Add(patience))
			_, _ = c.Write([]byte("fourth"))
			if _, err := c.Read(b); outcome(err) != "ECONNRESET" && outcome(err) != "end" {
				t.Errorf("the victim's own reset changes nothing (%v), so this test shows nothing", err)
			}
		})
	}
}

// forgedReset is a reset of the connection that last is of, at the sequence number that its receiver waits for.
func forgedReset(last packet, next uint32) []byte {
	ip, tr := ipPacket(protoTCP, last.src.Addr(), last.dst.Addr(), header.TCPMinimumSize)
	header.TCP(tr).Encode(&header.TCPFields{SrcPort: last.src.Port(), DstPort: last.dst.Port(), SeqNum: next,
		AckNum: header.TCP(last.transport).AckNumber(), DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagRst | header.TCPFlagAck})
	header.TCP(tr).SetChecksum(transportChecksum(protoTCP, last.src.Addr(), last.dst.Addr(), tr))
	return ip
}
