package slirp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Dial connects to a sandbox from the router, as readiness checks do. network is "tcp" or "udp"; addr is an address of
// this network, or one of its names, and a port.
func (n *Network) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	name, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dialling %q: %w", addr, err)
	}
	if v4, _, ok := n.names.lookup(canonical(name), nil); ok {
		name = v4[0].String()
	}
	to, err := netip.ParseAddrPort(net.JoinHostPort(name, port))
	if err != nil {
		return nil, fmt.Errorf("dialling %q: no such name or address in this network", addr)
	}
	kind := unix.SOCK_STREAM
	switch network {
	case "tcp", "tcp4", "tcp6":
	case "udp", "udp4", "udp6":
		kind = unix.SOCK_DGRAM
	default:
		return nil, fmt.Errorf("dialling %q: %w", addr, net.UnknownNetworkError(network))
	}
	c, err := n.dialAddr(ctx, kind, to)
	if err != nil {
		return nil, fmt.Errorf("dialling %s: %w", to, err)
	}
	return c, nil
}

// dialAddr makes a socket on the router's thread and connects it here.
func (n *Network) dialAddr(ctx context.Context, kind int, to netip.AddrPort) (socket, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap().WithZone(""), to.Port())
	family := unix.AF_INET6
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if to.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	fd := -1
	err := n.thread.do(func() (err error) {
		fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening a socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "dial")
	defer f.Close() // the connection has a copy of its own
	switch err := unix.Connect(fd, sa); {
	case errors.Is(err, unix.EINPROGRESS):
		if err := connected(ctx, f); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	sharePort(fd)
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(socket), nil
}

// connected waits until a connect under way has ended.
func connected(ctx context.Context, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) }) // fails on a closed file only
	defer stop()
	var result int
	var serr error
	err = raw.Write(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(fds, 0); n == 0 || errors.Is(err, unix.EINTR) {
			return false
		}
		result, serr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		return true
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	case serr != nil:
		return serr
	case result != 0:
		return unix.Errno(result)
	}
	return nil
}
