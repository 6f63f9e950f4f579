package slirp

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sendRaw sends a whole IP packet, whatever its source, as a program with CAP_NET_RAW can.
func (ns *namespace) sendRaw(ip []byte, dst netip.Addr) {
	ns.tb.Helper()
	err := ns.do(func() error {
		family, level, opt := unix.AF_INET6, unix.SOL_IPV6, 36 // IPV6_HDRINCL, linux/in6.h
		var to unix.Sockaddr = &unix.SockaddrInet6{Addr: dst.As16()}
		if dst.Is4() {
			family, level, opt, to = unix.AF_INET, unix.SOL_IP, unix.IP_HDRINCL, &unix.SockaddrInet4{Addr: dst.As4()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, level, opt, 1); err != nil {
			return err
		}
		return unix.Sendto(fd, ip, 0, to)
	})
	if err != nil {
		ns.tb.Fatalf("sending a packet to %s: %v", dst, err)
	}
}

// TestNoSandboxSpeaksForAnother holds what policies of single sandboxes rest on: a packet with another's source goes nowhere.
func TestNoSandboxSpeaksForAnother(t *testing.T) {
	inet := internet(t)
	n := newNetwork(t)
	closed := newNamespace(t)
	e, err := n.Attach(context.Background(), AttachOptions{NetNS: closed.fd, Name: "closed"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	_, open := newSandbox(t, n, "open")
	third, thirdEnd := newSandbox(t, n, "third")
	gw4, gw6 := n.Gateway()
	for _, c := range []struct {
		name                      string
		remote                    string
		own, foreign, gw, another netip.Addr
	}{
		{"IPv4", inetV4, e.IPv4(), open.IPv4(), gw4, thirdEnd.IPv4()},
		{"IPv6", inetV6, e.IPv6(), open.IPv6(), gw6, thirdEnd.IPv6()},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := inet.listenPacket("udp", at(c.remote, 0))
			in := third.listenPacket("udp", at(c.another, 0))
			send := func(src, dst netip.Addr, port int) {
				closed.sendRaw(udpPacket(netip.AddrPortFrom(src, 4000), netip.AddrPortFrom(dst, uint16(port)), []byte(src.String())), dst)
			}
			remote := netip.MustParseAddr(c.remote)
			for _, src := range []netip.Addr{c.foreign, c.gw, c.own} { // its own last: what comes first is what went through
				send(src, remote, portOf(out.LocalAddr()))
				send(src, c.another, portOf(in.LocalAddr()))
			}
			b := make([]byte, 100)
			_ = out.SetReadDeadline(time.Now().Add(20 * time.Second))
			if m, _, err := out.ReadFrom(b); err != nil || string(b[:m]) != c.own.String() {
				t.Errorf("the internet got a packet from %q, %v; want only those from %s", b[:m], err, c.own)
			}
			_ = in.SetReadDeadline(time.Now().Add(20 * time.Second))
			if m, _, err := in.ReadFrom(b); err != nil || string(b[:m]) != c.own.String() {
				t.Errorf("another sandbox got a packet from %q, %v; want only those from %s", b[:m], err, c.own)
			}
			// The name server answers by the source too.
			u := closed.mustDial("udp", at(c.gw, 53))
			q := []byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04open\x00\x00\x01\x00\x01")
			_, _ = u.Write(q)
			_ = u.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := u.Read(b); err != nil {
				t.Errorf("the name server does not answer a sandbox's own address: %v", err)
			}
		})
	}
}
