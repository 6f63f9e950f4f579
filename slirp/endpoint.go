package slirp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
)

// AttachOptions say how a sandbox joins a network.
type AttachOptions struct {
	NetNS   int        // descriptor of the sandbox's network namespace, which belongs to the caller's user namespace; the network has a copy of it until Close
	Name    string     // DNS label; unique in the network, or empty
	Aliases []string   // more names, which several sandboxes may share
	IPv4    netip.Addr // address wished for; the zero Addr: any
	Egress  string     // what the sandbox may reach outside, as config.ParseEgress reads it; empty: as the network says
	// HostPorts are ports of the host's loopback that the sandbox reaches on the gateway's addresses, over TCP and UDP. 53
	// cannot be one.
	HostPorts []uint16
	// Groups the sandbox is in, of which two must share one to reach each other; none: the group "default".
	Groups []string
	// Isolate has the sandbox reach only those it names in Reaches, and be reached only by those that name it in theirs.
	Isolate bool
	// Reaches are names and aliases of sandboxes, which need not have joined yet.
	Reaches []string
}

// Endpoint is a sandbox's place on a network.
type Endpoint struct {
	network *Network
	name    string
	aliases []string
	v4, v6  netip.Addr
	index   int // of the link on the router's side
	netns   int // the sandbox's namespace; owned
	groups  []string
	isolate bool
	reaches []string
	egress  config.Egress
	known   knownNames
	budget  nameBudget
	// leaveHost ends what goes to the host's ports; nil without any.
	leaveHost context.CancelFunc

	mu        sync.Mutex
	published []*Published
	closed    bool
	closeOnce sync.Once
	closeErr  error
}

// Attach gives the namespace of a sandbox an eth0 with an address of each family, routes and a loopback that is up. The
// addresses work when it returns. ErrNameTaken is one of its errors.
func (n *Network) Attach(ctx context.Context, a AttachOptions) (*Endpoint, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	egress := n.egress
	if a.Egress != "" {
		var err error
		if egress, err = config.ParseEgress(a.Egress); err != nil {
			return nil, fmt.Errorf("attaching %q: %w", a.Name, err)
		}
	}
	netns, err := unix.FcntlInt(uintptr(a.NetNS), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("attaching %q: duplicating its network namespace: %w", a.Name, err)
	}
	e := &Endpoint{network: n, name: a.Name, aliases: a.Aliases, groups: a.Groups, isolate: a.Isolate, reaches: n.names.namesOf(a.Reaches), egress: egress, netns: netns}
	if err := n.reserve(e, a.IPv4); err != nil {
		unix.Close(netns)
		return nil, fmt.Errorf("attaching %q: %w", a.Name, err)
	}
	err = n.openHostPorts(e, a.HostPorts)
	if err == nil {
		err = n.link(e, a.NetNS)
	}
	if err != nil {
		n.leaveHostPorts(e)
		n.release(e)
		unix.Close(netns)
		return nil, fmt.Errorf("attaching %q: %w", a.Name, err)
	}
	return e, nil
}

// reserve gives e its addresses, names and link number.
func (n *Network) reserve(e *Endpoint, wish netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return errThreadGone
	}
	var err error
	if e.v4, err = n.chooseAddress(wish); err != nil {
		return err
	}
	e.v6 = sixFor(n.plan, e.v4)
	if err := n.names.add(e); err != nil {
		return err
	}
	n.endpoints[e.v4] = e
	n.walled = n.walled || e.isolate || len(e.groups) > 0
	e.index = n.nextIndex
	n.nextIndex++
	return nil
}

// chooseAddress returns wish if that is free, or else the lowest free address.
func (n *Network) chooseAddress(wish netip.Addr) (netip.Addr, error) {
	usable := func(a netip.Addr) bool { // not the network's, the router's or the broadcast address
		return n.plan.v4.Contains(a) && n.plan.v4.Contains(a.Next()) && a.Compare(n.plan.gw4) > 0
	}
	if wish.IsValid() {
		wish = wish.Unmap()
		if !usable(wish) {
			return netip.Addr{}, fmt.Errorf("address %s is not one for sandboxes in %s", wish, n.plan.v4)
		}
		if other := n.endpoints[wish]; other != nil {
			return netip.Addr{}, fmt.Errorf("address %s belongs to %q", wish, other.name)
		}
		return wish, nil
	}
	for a := n.plan.gw4.Next(); usable(a); a = a.Next() {
		if n.endpoints[a] == nil {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address is left in %s", n.plan.v4)
}

// sixFor puts the host part of an IPv4 address, as a number, into the IPv6 subnet: 10.1.2.3 is …::3.
func sixFor(p plan, v4 netip.Addr) netip.Addr {
	out, part, base := p.v6.Addr().As16(), v4.As4(), p.v4.Addr().As4()
	for i := range part {
		out[12+i] |= part[i] &^ base[i]
	}
	return netip.AddrFrom16(out)
}

func (n *Network) release(e *Endpoint) {
	n.mu.Lock()
	n.names.remove(e)
	delete(n.endpoints, e.v4)
	walled := n.walled
	n.mu.Unlock()
	if walled {
		// The link is gone and its number is not used again: what may be left in the wall opens nothing.
		_ = n.thread.do(n.enforce)
	}
}

// link makes the pair and brings both ends up.
func (n *Network) link(e *Endpoint, netns int) error {
	return n.thread.do(func() error {
		if err := n.enforce(); err != nil { // before the first packet
			return err
		}
		if err := n.router.run(sandboxLink(e.index, netns)); err != nil {
			return err
		}
		err := n.router.run(routerSide(n.plan, e.index, e.v4, e.v6)...)
		if err == nil {
			err = n.thread.in(netns, func() error {
				plainCongestion()
				tryAs(n.hostTries, n.freshTries)
				s, err := openRouteSocket()
				if err != nil {
					return err
				}
				defer s.close()
				return s.run(sandboxSide(n.plan, e.v4, e.v6)...)
			})
		}
		if err == nil {
			err = n.router.await(e.index)
		}
		if err != nil {
			return errors.Join(err, n.unlink(e))
		}
		return nil
	})
}

// unlink takes down what link has made. It runs on the router's thread.
func (n *Network) unlink(e *Endpoint) error {
	_ = n.router.run(sourceRules(unix.RTM_DELRULE, e.index, e.v6)...) // they stand in nobody's way without their link
	return n.router.run(linkDelete(e.index))
}

// IPv4 returns the sandbox's IPv4 address.
func (e *Endpoint) IPv4() netip.Addr { return e.v4 }

// IPv6 returns the sandbox's IPv6 address.
func (e *Endpoint) IPv6() netip.Addr { return e.v6 }

// FreeNames gives the sandbox's names to whoever wants them next. It takes no time; Close, which does it too, does.
func (e *Endpoint) FreeNames() { e.network.names.free(e) }

// Close takes the sandbox off the network: its published ports, connections, names and link go. The kernel takes tens of
// milliseconds for the link. A sandbox whose namespace has gone already is no error.
func (e *Endpoint) Close() error {
	e.closeOnce.Do(func() {
		n := e.network
		e.unpublish()
		n.leaveHostPorts(e)
		n.gate.endSource(e.v4, e.v6)
		err := n.thread.do(func() error { return n.unlink(e) })
		if !linkGone(err) {
			e.closeErr = fmt.Errorf("detaching %q: %w", e.name, err)
		}
		// A packet that was in the uplink's queue may have begun a flow meanwhile. It ends before the address is another's.
		n.names.remove(e)
		n.gate.endSource(e.v4, e.v6)
		n.release(e)
		unix.Close(e.netns)
	})
	return e.closeErr
}

// unpublish closes the published ports, and every one to come.
func (e *Endpoint) unpublish() {
	e.mu.Lock()
	ports := e.published
	e.published, e.closed = nil, true
	e.mu.Unlock()
	for _, p := range ports {
		p.Close()
	}
}
