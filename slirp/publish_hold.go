package slirp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
)

// Hold has host ports that are not served yet: nobody else gets them, and the kernel refuses who asks for them, as it
// does on ports that nobody has. It is not safe for use by several goroutines.
type Hold struct {
	ports []portForward // with the port that the kernel picked where 0 was asked for
	fds   []int
}

// HoldPorts takes host ports, all of the range or, with an error, none. An error about a port is a *PortError, the same
// that Publish would give.
func HoldPorts(p config.Port) (*Hold, error) {
	plan, err := portPlan(p)
	if err != nil {
		return nil, err
	}
	h := &Hold{}
	for _, one := range plan {
		fd, at, err := holdPort(one)
		if err != nil {
			h.Close()
			return nil, newPortError(one.host, one.app, one.protocol, err)
		}
		one.host = at
		h.ports, h.fds = append(h.ports, one), append(h.fds, fd)
	}
	return h, nil
}

// HeldPort is one port of a Hold.
type HeldPort struct {
	Host     netip.AddrPort
	App      uint16
	Protocol string
}

// Ports are what is held, in the order of the range.
func (h *Hold) Ports() []HeldPort {
	out := make([]HeldPort, len(h.ports))
	for i, p := range h.ports {
		out[i] = HeldPort{Host: p.host, App: p.app, Protocol: p.protocol}
	}
	return out
}

// Close lets go of the ports.
func (h *Hold) Close() {
	for _, fd := range h.fds {
		unix.Close(fd)
	}
	h.fds = nil
}

// PublishHeld serves the ports of a Hold, which it uses up: all or, with an error, none.
func (n *Network) PublishHeld(ctx context.Context, e *Endpoint, h *Hold) ([]*Published, error) {
	defer h.Close()
	var out []*Published
	for i, p := range h.ports {
		if p.protocol == "tcp" {
			// Two sockets may have one port while neither listens and both allow it, so that it is never free: ip(7). Before,
			// this one did not allow it.
			if err := unix.SetsockoptInt(h.fds[i], unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
				return nil, errors.Join(newPortError(p.host, p.app, p.protocol, err), closeAll(out))
			}
		} else {
			unix.Close(h.fds[i]) // datagrams know no such thing: for a moment, somebody else may take it
			h.fds[i] = -1
		}
		one, err := n.Publish(ctx, e, config.Port{HostIP: p.host.Addr(), Host: p.host.Port(), App: p.app, Count: 1, Protocol: p.protocol})
		if err != nil {
			return nil, errors.Join(err, closeAll(out))
		}
		out = append(out, one...)
	}
	return out, nil
}

func closeAll(ports []*Published) error {
	var err error
	for _, p := range ports {
		err = errors.Join(err, p.Close())
	}
	return err
}

func holdPort(p portForward) (fd int, at netip.AddrPort, err error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if p.host.Addr().Is6() {
		family = unix.AF_INET6
	}
	if p.protocol == "udp" {
		kind = unix.SOCK_DGRAM
	}
	if fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, at, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if family == unix.AF_INET6 { // as package net does for one family
		if err := unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return -1, at, err
		}
	}
	err = unix.Bind(fd, sockaddrOf(p.host))
	if kind == unix.SOCK_STREAM && errors.Is(err, unix.EADDRINUSE) {
		// It may be in use by nothing but connections that wait for their time to end (TIME-WAIT, RFC 9293 §3.6.1).
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return -1, at, err
		}
		err = unix.Bind(fd, sockaddrOf(p.host))
	}
	if err != nil {
		return -1, at, err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return -1, at, fmt.Errorf("asking for the port: %w", err)
	}
	at = netip.AddrPortFrom(p.host.Addr(), addrPortOf(sa).Port())
	if kind == unix.SOCK_STREAM {
		return fd, at, nil
	}
	// A socket that talks to itself takes nobody else's datagrams: those are answered "port unreachable".
	self := at
	switch {
	case at.Addr() == netip.IPv4Unspecified():
		self = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	case at.Addr() == netip.IPv6Unspecified():
		self = netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
	}
	if err := unix.Connect(fd, sockaddrOf(self)); err != nil {
		return -1, at, fmt.Errorf("closing the port: %w", err)
	}
	return fd, at, nil
}
