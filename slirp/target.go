package slirp

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// appTarget is one way to reach an app on one of its ports.
type appTarget struct {
	to     netip.AddrPort
	from   netip.AddrPort // the socket's own address, which the app sees; the zero AddrPort: the router's
	inside bool           // from the sandbox's own namespace
}

// targets are the ways to an app for a client, the best first. The app sees the client's own address where that can be
// an address of somebody outside: a client on this machine's loopback, or one that only this machine can name
// (link-local), appears as the router, never as the app's own 127.0.0.1. An app may listen on one address family only,
// or on its own loopback only; there it sees a client from its own address.
func (e *Endpoint) targets(client netip.AddrPort, six bool, port uint16) []appTarget {
	v4, v6 := appTarget{to: netip.AddrPortFrom(e.v4, port)}, appTarget{to: netip.AddrPortFrom(e.v6, port)}
	in4 := appTarget{to: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port), from: netip.AddrPortFrom(e.v4, 0), inside: true}
	in6 := appTarget{to: netip.AddrPortFrom(netip.IPv6Loopback(), port), from: netip.AddrPortFrom(e.v6, 0), inside: true}
	if e.network.canBeSeen(client.Addr()) {
		if client.Addr().Is4() {
			v4.from = client
		} else {
			v6.from = client
		}
	}
	if six {
		return []appTarget{v6, v4, in6, in4}
	}
	return []appTarget{v4, v6, in4, in6}
}

// canBeSeen reports whether a client's address may appear on the network as the source of what the client sends.
func (n *Network) canBeSeen(a netip.Addr) bool {
	return a.IsValid() && !a.IsLoopback() && !a.IsUnspecified() && !a.IsLinkLocalUnicast() && a.Zone() == "" && !a.IsMulticast() && !a.Is4In6() &&
		!n.plan.v4.Contains(a) && !n.plan.v6.Contains(a)
}

// inNamespace runs f in another network namespace and comes back.
type inNamespace func(netns int, f func() error) error

// seen leaves a client's address away where the kernel cannot show it; transparent has said then what is missing.
func (n *Network) seen(t appTarget) appTarget {
	if t.from.IsValid() && !t.inside && n.transparent.start() != nil {
		t.from = netip.AddrPort{}
	}
	return t
}

// openSocket makes a socket for a target and gives it its address. It runs on a thread in the router's namespace, and in
// is that thread's.
func (e *Endpoint) openSocket(in inNamespace, kind int, t appTarget) (fd int, err error) {
	family := unix.AF_INET6
	if t.to.Addr().Is4() {
		family = unix.AF_INET
	}
	open := func() (err error) {
		fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return os.NewSyscallError("socket", err)
	}
	if t.inside {
		err = in(e.netns, open)
	} else {
		err = open()
	}
	if err != nil || !t.from.IsValid() {
		return fd, err
	}
	if t.inside {
		err = unix.Bind(fd, sockaddrOf(t.from))
	} else {
		err = bindTransparent(fd, t.from)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("binding to %s: %w", t.from, err)
	}
	return fd, nil
}

// sharePort lets a host port be opened with the number that the kernel has picked for a connected socket of the router's; what
// comes from the peer stays the socket's. Before it is connected, a datagram socket would share with others like it.
func sharePort(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // fails on what is no socket only
}

// bindTransparent gives a socket a client's address, and its port too unless another socket of the client's has it here.
func bindTransparent(fd int, from netip.AddrPort) error {
	if err := transparentSocket(fd, from.Addr().Is6()); err != nil {
		return err
	}
	err := unix.Bind(fd, sockaddrOf(from))
	if err == unix.EADDRINUSE {
		err = unix.Bind(fd, sockaddrOf(netip.AddrPortFrom(from.Addr(), 0)))
	}
	return err
}

func sockaddrOf(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
