package slirp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// becameHost is why a flow ends that was allowed before.
const becameHost = "the address has become the host's own"

// hostSettle is how long after a change of the host's addresses flows are looked at: changes come in crowds, and a flow
// that was admitted before one is in its table by then.
const hostSettle = 50 * time.Millisecond

// hostGroups are rtnetlink(7)'s groups that tell of addresses, and of the routes that make them the host's.
const hostGroups = unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV6_ROUTE

// watchHost ends flows whose destination becomes the host's own while they last, as an address of a VPN's or a LAN's may. Those
// that dial after the change are found out by their own addresses (ownAddress).
func (g *gate) watchHost() {
	f, err := hostChanges()
	if err != nil {
		g.log.Warn("flows outlast a change of the host's addresses", "err", err)
		return
	}
	stop := context.AfterFunc(g.ctx, func() { f.Close() })
	g.wg.Go(func() {
		defer stop()
		defer f.Close()
		b := make([]byte, 32<<10)
		for {
			n, err := f.Read(b)
			switch {
			case errors.Is(err, unix.ENOBUFS): // there were more than fit
			case err != nil:
				return // the network is closing
			case !maybeHosts(b[:n]):
				continue
			}
			pause(g.ctx, hostSettle)
			_ = f.SetReadDeadline(time.Unix(1, 0)) // these fail on a closed file only, on which Read ends
			for err = nil; err == nil || errors.Is(err, unix.ENOBUFS); {
				_, err = f.Read(b)
			}
			_ = f.SetReadDeadline(time.Time{})
			g.endHosts()
		}
	})
}

// hostChanges opens a socket that tells of changes of the addresses in the calling thread's namespace.
func hostChanges() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening rtnetlink: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: hostGroups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("binding rtnetlink: %w", err)
	}
	return os.NewFile(uintptr(fd), "rtnetlink"), nil
}

// maybeHosts reports whether messages tell of an address that may be new, or of a local route.
func maybeHosts(b []byte) bool {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return true
	}
	for _, m := range messages {
		const kind = 7 // of struct rtmsg
		if m.Header.Type == unix.RTM_NEWADDR || m.Header.Type == unix.RTM_NEWROUTE && len(m.Data) > kind && m.Data[kind] != unix.RTN_UNICAST {
			return true
		}
	}
	return false
}

// endHosts ends the flows to addresses that are the host's now, unless a rule names the address.
func (g *gate) endHosts() {
	own := make(map[netip.Addr]bool)
	gone := func(f flow) bool {
		a := f.dst.Addr()
		is, known := own[a]
		if !known {
			is = g.isHost(a)
			own[a] = is
		}
		if !is {
			return false
		}
		e := g.names.endpoint(f.src.Addr())
		return e == nil || decide(e.egress, g.subnets, f, nil, g.isHost).action != allow
	}
	g.tcp.endWhere(gone)
	g.udp.flows.endWhere(gone, becameHost)
	g.echo.flows.endWhere(gone, becameHost)
}
