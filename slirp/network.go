package slirp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
)

// Config says what a network is like.
type Config struct {
	Name       string       // DNS zone of the sandboxes' full names; may be empty
	IPv4       netip.Prefix // subnet, /8 to /29; see ChoosePrefixes. The router has its first address
	IPv6       netip.Prefix // subnet, at most /112
	Egress     string       // what sandboxes may reach outside, as config.ParseEgress reads it; empty: "all"
	Log        *slog.Logger // nil: no log
	ResolvConf string       // the host's resolv.conf(5); empty: /etc/resolv.conf
	// OnFlow is told of each flow when it has ended or was denied; nil: nobody. It must not block, and is called by
	// several goroutines at once.
	OnFlow func(Flow)
	// NoFastPath has TCP carried by the user-mode stack even where the kernel could do it.
	NoFastPath bool
}

// Network is a router namespace with its subnet, name server and way out. Its methods may be called by several
// goroutines at once. There is no way to use it but New.
type Network struct {
	config Config
	egress config.Egress
	plan   plan
	log    *slog.Logger

	cancel      context.CancelFunc
	ctx         context.Context
	thread      *thread
	router      *routeSocket // in the router namespace
	host        *netlink.Handle
	gate        *gate
	flowlog     *flowLog
	transparent *transparent
	loops       *loops
	names       *names
	dns         *nameServer
	wall        *wall // nil until it is needed; the thread's
	hostTries   tries
	freshTries  tries // of a new namespace
	wg          sync.WaitGroup

	hostMu    sync.Mutex
	hostPorts map[uint16]*hostPort

	mu        sync.Mutex
	walled    bool                     // not every sandbox may reach every other
	endpoints map[netip.Addr]*Endpoint // by IPv4 address
	nextIndex int
	closed    bool
	closeOnce sync.Once
}

// New makes a network. The caller is root, with CAP_NET_ADMIN, CAP_NET_RAW, CAP_NET_BIND_SERVICE and CAP_SYS_ADMIN, in a
// user namespace, which need not be the host's, and in the network namespace that the network is to reach the world
// from. The network lives until Close; ctx only bounds the making.
func New(ctx context.Context, c Config) (*Network, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	if c.Egress == "" {
		c.Egress = string(config.EgressAll)
	}
	egress, err := config.ParseEgress(c.Egress)
	if err != nil {
		return nil, fmt.Errorf("network %q: %w", c.Name, err)
	}
	p, err := newPlan(c)
	if err != nil {
		return nil, err
	}
	n := &Network{config: c, egress: egress, plan: p, log: c.Log, names: newNames(c.Name), endpoints: make(map[netip.Addr]*Endpoint), nextIndex: indexFirst}
	n.flowlog = newFlowLog(n)
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := n.open(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.dns.start()
	n.wg.Go(n.gate.run)
	return n, nil
}

func newPlan(c Config) (plan, error) {
	p := plan{v4: c.IPv4.Masked(), v6: c.IPv6.Masked()}
	if err := errors.Join(CheckSubnet(c.IPv4), CheckSubnet(c.IPv6)); err != nil {
		return plan{}, fmt.Errorf("network %q: %w", c.Name, err)
	}
	if !p.v4.Addr().Is4() || !p.v6.Addr().Is6() {
		return plan{}, fmt.Errorf("network %q: subnets %q and %q are not one of IPv4 and one of IPv6", c.Name, c.IPv4, c.IPv6)
	}
	p.gw4, p.gw6 = p.v4.Addr().Next(), p.v6.Addr().Next()
	return p, nil
}

func (n *Network) open() (err error) {
	if n.host, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("opening the host's routes: %w", err)
	}
	if n.thread, err = startThread(); err != nil {
		return err
	}
	n.hostTries = readTries()
	n.dns = &nameServer{log: n.log, names: n.names, resolver: resolver{path: n.config.ResolvConf},
		gateway: [2]netip.Addr{n.plan.gw4, n.plan.gw6}, subnets: [2]netip.Prefix{n.plan.v4, n.plan.v6}, isHost: n.isHost, flowlog: n.flowlog}
	return n.thread.do(func() error {
		if n.router, err = openRouteSocket(); err != nil {
			return err
		}
		if err := n.router.run(routerPlan(n.plan)...); err != nil {
			return err
		}
		plainCongestion()
		n.freshTries = readTries()
		if err := forwardIPv6(); err != nil {
			n.log.Warn("sandboxes have no IPv6 beyond themselves", "err", err)
		}
		if err := noDatagramOffload("up"); err != nil {
			n.log.Debug("datagrams stay uncut", "err", err)
		}
		up, err := openUplink()
		if err != nil {
			return err
		}
		n.transparent = &transparent{thread: n.thread, router: n.router, log: n.log}
		n.loops = &loops{netns: n.thread.netns}
		fast := n.transparent
		if n.config.NoFastPath {
			fast = nil
		}
		n.gate = newGate(n.ctx, n.log, up, n.names, n.dns.subnets, n.isHost, fast, n.loops)
		n.gate.flowlog = n.flowlog
		return n.dns.listen(n.ctx)
	})
}

// isHost asks the kernel whether it would deliver to an address here. That knows what no list of addresses does: local
// routes, broadcast addresses, and the address that came a moment ago.
func (n *Network) isHost(a netip.Addr) bool {
	routes, err := n.host.RouteGet(net.IP(a.AsSlice()))
	own, known := routedHere(routes, err)
	if !known {
		n.log.Warn("an address is taken for the host's: the kernel does not say", "address", a, "err", err)
	}
	return own
}

// routedHere reads the kernel's answer about an address. One without a route is not the host's; without an answer, it may be,
// and is taken to.
func routedHere(routes []netlink.Route, err error) (own, known bool) {
	for _, noRoute := range []unix.Errno{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL, unix.ESRCH} { // by the types of routes, ip-route(8)
		if errors.Is(err, noRoute) {
			return false, true
		}
	}
	if err != nil || len(routes) == 0 {
		return true, false
	}
	for _, r := range routes {
		switch r.Type {
		case unix.RTN_LOCAL, unix.RTN_BROADCAST, unix.RTN_ANYCAST, unix.RTN_MULTICAST:
			return true, true
		}
	}
	return false, true
}

// Gateway returns the router's addresses, which are the name server's too.
func (n *Network) Gateway() (v4, v6 netip.Addr) { return n.plan.gw4, n.plan.gw6 }

// Close ends every connection and takes the network down: afterwards there is no goroutine, descriptor or namespace of
// it, but for what sandboxes hold of theirs.
func (n *Network) Close() error {
	n.closeOnce.Do(func() {
		n.mu.Lock()
		n.closed = true
		var all []*Endpoint
		for _, e := range n.endpoints {
			all = append(all, e)
		}
		n.mu.Unlock()
		n.cancel()
		for _, e := range all {
			e.unpublish()
			n.leaveHostPorts(e)
		}
		if n.dns != nil {
			n.dns.close()
		}
		if n.gate != nil {
			n.gate.up.stopReading()
			n.transparent.close()
			n.wg.Wait()
			n.gate.close()
			n.loops.close()
			for _, e := range all {
				e.closeOnce.Do(func() { unix.Close(e.netns) })
			}
		}
		if n.router != nil {
			n.router.close()
		}
		if n.thread != nil {
			n.thread.stop()
		}
		if n.host != nil {
			n.host.Close()
		}
		n.flowlog.close()
	})
	return nil
}
