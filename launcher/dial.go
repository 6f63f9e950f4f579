package launcher

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Dial connects over TCP from inside the sandbox's network namespace, with a socket made there: an app that
// listens on its own loopback device only is reached as well. It gives up when ctx is done.
func (s *Sandbox) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	family := unix.AF_INET6
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if to.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	fd := -1
	err := s.do(func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make socket in the sandbox: %w", err)
	}
	f := os.NewFile(uintptr(fd), "dial")
	defer f.Close()
	if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS {
		return nil, fmt.Errorf("connect to %s in the sandbox: %w", to, err)
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int((20 * time.Millisecond).Milliseconds()))
		if err != nil && err != unix.EINTR {
			return nil, fmt.Errorf("connect to %s in the sandbox: %w", to, err)
		}
		if n > 0 {
			break
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	if e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || e != 0 {
		if err == nil {
			err = unix.Errno(e)
		}
		return nil, fmt.Errorf("connect to %s in the sandbox: %w", to, err)
	}
	return net.FileConn(f)
}
