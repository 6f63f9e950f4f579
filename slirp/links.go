package slirp

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/internal/procfs"
)

const (
	// linkMTU lets an IPv4 datagram of the largest size (65,507 bytes of UDP) through without fragments, and is the most
	// that a veth takes. Nothing on these links is ever serialised onto a wire.
	linkMTU = 65535

	// Link numbers are chosen, not asked for, which saves a round trip. They start high because some kernels put
	// tunnel devices (sit0, tunl0) into every new namespace.
	indexLoopback = 1
	indexNear     = 100 // router's end of the uplink
	indexFar      = 101 // the end that the packet socket reads
	indexSandbox  = 100 // eth0 in a sandbox
	indexFirst    = 200 // router's end of the first sandbox's link
)

// The uplink's two ends have different addresses and no ARP, so frames from the near end carry the near end's own
// address (arp(7): a NOARP device is its own neighbour). On the far end the kernel takes them for somebody else's and
// drops them before its IP stack, but the packet socket has seen them.
//
// A sandbox's link is the opposite: both ends have the same address, so without any neighbour entry each frame is
// for its receiver.
var (
	macNear = net.HardwareAddr{0x02, 'w', 'h', 's', 0, 1}
	macFar  = net.HardwareAddr{0x02, 'w', 'h', 's', 0, 2}
)

func macSandbox(index int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 'w', byte(index >> 24), byte(index >> 16), byte(index >> 8), byte(index)}
}

// uplinkNext4 and uplinkNext6 are the next hops of the router's default routes. Nobody has them: the near end
// resolves no addresses. One next hop keeps the kernel at one neighbour entry instead of one per destination.
var (
	uplinkNext4 = netip.MustParseAddr("169.254.1.1")
	uplinkNext6 = netip.MustParseAddr("fe80::1")
)

// addrGenNone keeps the kernel from making link-local IPv6 addresses and probing for them (in6_addr_gen_mode).
const addrGenNone = 1

// inetConf is an index into the kernel's per-device IPv4 settings (enum in linux/ip.h). They go with the link's
// netlink message, so no file of /proc/sys needs to be writable.
const (
	inetConfForwarding    = 1
	inetConfAcceptRedir   = 4
	inetConfSendRedirects = 6
	inetConfRPFilter      = 8
)

// plan is the subnet of a network as the kernel's links need it.
type plan struct {
	v4, v6   netip.Prefix
	gw4, gw6 netip.Addr
}

func vethPair(what, name string, index int, mac net.HardwareAddr, peerName string, peerIndex int, peerMAC net.HardwareAddr, peerNS int) request {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	peer := data.AddRtAttr(nl.VETH_INFO_PEER, nil)
	child := nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	child.Index = int32(peerIndex)
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(peerName))
	peer.AddRtAttr(unix.IFLA_MTU, nl.Uint32Attr(linkMTU))
	peer.AddRtAttr(unix.IFLA_ADDRESS, peerMAC)
	if peerNS >= 0 {
		peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(peerNS)))
	}
	return newRequest(what, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, msg,
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)),
		nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(linkMTU)),
		nl.NewRtAttr(unix.IFLA_ADDRESS, mac),
		info)
}

// linkUp brings a link up without ARP and with the given IPv4 settings.
func linkUp(what string, index int, conf map[int]uint32) request {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	msg.Flags = unix.IFF_UP
	msg.Change = unix.IFF_UP
	if index == indexLoopback {
		return newRequest(what, unix.RTM_NEWLINK, 0, msg)
	}
	msg.Flags |= unix.IFF_NOARP
	msg.Change |= unix.IFF_NOARP
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, nl.Uint8Attr(addrGenNone))
	if len(conf) > 0 {
		settings := spec.AddRtAttr(unix.AF_INET, nil).AddRtAttr(unix.IFLA_INET_CONF, nil)
		for k, v := range conf {
			settings.AddRtAttr(k, nl.Uint32Attr(v))
		}
	}
	return newRequest(what, unix.RTM_NEWLINK, 0, msg, spec)
}

func linkDelete(index int) request {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	return newRequest("removing the sandbox's link", unix.RTM_DELLINK, 0, msg)
}

func address(what string, index int, p netip.Prefix) request {
	family := unix.AF_INET
	if p.Addr().Is6() {
		family = unix.AF_INET6
	}
	msg := nl.NewIfAddrmsg(family)
	msg.Index = uint32(index)
	msg.Prefixlen = uint8(p.Bits())
	msg.Flags = unix.IFA_F_NODAD
	a := p.Addr().AsSlice()
	return newRequest(what, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, msg, nl.NewRtAttr(unix.IFA_LOCAL, a), nl.NewRtAttr(unix.IFA_ADDRESS, a))
}

// route is what a route request says; via, from and index may be left out.
type route struct {
	what  string
	to    netip.Prefix
	kind  uint8 // RTN_*
	index int
	via   netip.Addr
	from  netip.Addr
	table uint8 // 0: the main table
}

func (r route) request() request {
	msg := nl.NewRtMsg()
	msg.Family = unix.AF_INET
	if r.to.Addr().Is6() {
		msg.Family = unix.AF_INET6
	}
	msg.Dst_len = uint8(r.to.Bits())
	msg.Type = r.kind
	msg.Scope = unix.RT_SCOPE_UNIVERSE
	if r.table != 0 {
		msg.Table = r.table
	}
	var attrs []nl.NetlinkRequestData
	if r.to.Bits() > 0 {
		attrs = append(attrs, nl.NewRtAttr(unix.RTA_DST, r.to.Addr().AsSlice()))
	}
	if r.via.IsValid() {
		msg.Flags |= unix.RTNH_F_ONLINK
		attrs = append(attrs, nl.NewRtAttr(unix.RTA_GATEWAY, r.via.AsSlice()))
	} else if r.kind == unix.RTN_UNICAST && msg.Family == unix.AF_INET {
		msg.Scope = unix.RT_SCOPE_LINK
	} else if r.kind == unix.RTN_LOCAL && msg.Family == unix.AF_INET {
		msg.Scope = unix.RT_SCOPE_HOST
	}
	if r.from.IsValid() {
		attrs = append(attrs, nl.NewRtAttr(unix.RTA_PREFSRC, r.from.AsSlice()))
	}
	if r.index != 0 {
		attrs = append(attrs, nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(r.index))))
	}
	q := newRequest(r.what, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, msg)
	for _, a := range attrs {
		q.msg.AddData(a)
	}
	return q
}

var (
	anywhere4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	anywhere6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

// Priorities of the router's routing rules, ip-rule(8). Of IPv4, the kernel checks sources itself (RP_FILTER). For IPv6 it
// has no such check, so rules make it: what a sandbox sends from its own address goes on to ruleLocal, the rest of it
// nowhere. Policies go by source addresses, and none may pass for another's.
const (
	ruleOwn     = 1   // for each sandbox's link: its own source goes on
	ruleForeign = 2   // for each sandbox's link: any other does not
	ruleLocal   = 100 // the router's own addresses, IPv6; the kernel's rule for it comes first of all
	ruleMarked  = 200 // see transparentRoutes
)

// rule6 is a routing rule for IPv6; link, the one that packets come in by, and from may be left out.
func rule6(what string, kind, priority int, link string, from netip.Addr, action uint8, attrs ...nl.NetlinkRequestData) request {
	msg := nl.NewRtMsg()
	msg.Family = unix.AF_INET6
	msg.Type = action
	msg.Protocol = 0
	msg.Scope = 0
	flags := 0
	if kind == unix.RTM_NEWRULE {
		flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	attrs = append(attrs, nl.NewRtAttr(nl.FRA_PRIORITY, nl.Uint32Attr(uint32(priority))))
	if link != "" {
		attrs = append(attrs, nl.NewRtAttr(nl.FRA_IIFNAME, nl.ZeroTerminated(link)))
	}
	if from.IsValid() {
		msg.Src_len = uint8(from.BitLen())
		attrs = append(attrs, nl.NewRtAttr(nl.FRA_SRC, from.AsSlice()))
	}
	return newRequest(what, kind, flags, append([]nl.NetlinkRequestData{msg}, attrs...)...)
}

// sourceRules let a sandbox's link in with its own IPv6 address only; kind is RTM_NEWRULE or RTM_DELRULE.
func sourceRules(kind, index int, v6 netip.Addr) []request {
	link := routerLink(index)
	return []request{
		rule6("letting the sandbox's IPv6 address in", kind, ruleOwn, link, v6, unix.FR_ACT_GOTO, nl.NewRtAttr(nl.FRA_GOTO, nl.Uint32Attr(ruleLocal))),
		rule6("keeping other IPv6 addresses out", kind, ruleForeign, link, netip.Addr{}, unix.FR_ACT_BLACKHOLE),
	}
}

// routerLink is the name of the router's end of a sandbox's link.
func routerLink(index int) string { return fmt.Sprintf("app%d", index) }

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// localRoute has the kernel take packets for its own IPv6 address at once. It adds such a route itself, but from a work
// queue, even when there is no duplicate to be detected; until then packets for the address are lost.
func localRoute(index int, a netip.Addr) request {
	return route{what: "receiving for the IPv6 address", to: host(a), kind: unix.RTN_LOCAL, index: index, table: unix.RT_TABLE_LOCAL}.request()
}

// routerPlan is everything the router namespace needs before its first sandbox.
func routerPlan(p plan) []request {
	// On the uplink arrives what whisk writes, in everybody's name: no source checks.
	conf := map[int]uint32{inetConfForwarding: 1, inetConfRPFilter: 0, inetConfSendRedirects: 0, inetConfAcceptRedir: 0}
	return []request{
		vethPair("making the uplink", "up", indexNear, macNear, "far", indexFar, macFar, -1),
		linkUp("bringing the router's loopback up", indexLoopback, nil),
		// The end that comes up last may send at once (see routeSocket.await); packet sockets need not wait.
		linkUp("bringing the uplink's far end up", indexFar, nil),
		linkUp("bringing the uplink up", indexNear, conf),
		address("giving the router its IPv4 address", indexLoopback, host(p.gw4)),
		address("giving the router its IPv6 address", indexLoopback, host(p.gw6)),
		localRoute(indexLoopback, p.gw6),
		rule6("delivering to the router's IPv6 addresses", unix.RTM_NEWRULE, ruleLocal, "", netip.Addr{}, unix.FR_ACT_TO_TBL, nl.NewRtAttr(nl.FRA_TABLE, nl.Uint32Attr(unix.RT_TABLE_LOCAL))),
		rule6("checking IPv6 sources first", unix.RTM_DELRULE, 0, "", netip.Addr{}, unix.FR_ACT_TO_TBL, nl.NewRtAttr(nl.FRA_TABLE, nl.Uint32Attr(unix.RT_TABLE_LOCAL))),
		// Addresses of the subnet that no sandbox has must not leave by the default route.
		route{what: "closing the subnet", to: p.v4.Masked(), kind: unix.RTN_UNREACHABLE}.request(),
		route{what: "closing the IPv6 subnet", to: p.v6.Masked(), kind: unix.RTN_UNREACHABLE, index: indexLoopback}.request(),
		route{what: "routing to the uplink", to: anywhere4, kind: unix.RTN_UNICAST, index: indexNear, via: uplinkNext4, from: p.gw4}.request(),
		route{what: "routing IPv6 to the uplink", to: anywhere6, kind: unix.RTN_UNICAST, index: indexNear, via: uplinkNext6, from: p.gw6}.request(),
	}
}

// sandboxLink is the pair between router and sandbox, made from the router's side; index is the router's end.
func sandboxLink(index, netns int) request {
	mac := macSandbox(index)
	return vethPair("making the sandbox's link", routerLink(index), index, mac, "eth0", indexSandbox, mac, netns)
}

// routerSide finishes the router's end of a sandbox's link.
func routerSide(p plan, index int, v4, v6 netip.Addr) []request {
	// Strict source checks: a packet may enter only where a route to its source leads out (RFC 3704), so no sandbox
	// can speak in another's name.
	conf := map[int]uint32{inetConfForwarding: 1, inetConfRPFilter: 1, inetConfSendRedirects: 0, inetConfAcceptRedir: 0}
	return append(sourceRules(unix.RTM_NEWRULE, index, v6),
		linkUp("bringing the router's side up", index, conf),
		route{what: "routing to the sandbox", to: host(v4), kind: unix.RTN_UNICAST, index: index, from: p.gw4}.request(),
		route{what: "routing IPv6 to the sandbox", to: host(v6), kind: unix.RTN_UNICAST, index: index, from: p.gw6}.request(),
	)
}

// sandboxSide is what the sandbox's own namespace needs. The whole subnet is on the link: without ARP every frame goes
// to the router anyway, and programs that ask for their subnet (PostgreSQL's samenet) see the true one.
func sandboxSide(p plan, v4, v6 netip.Addr) []request {
	return []request{
		linkUp("bringing the sandbox's loopback up", indexLoopback, nil),
		linkUp("bringing the sandbox's link up", indexSandbox, nil),
		address("giving the sandbox its IPv4 address", indexSandbox, netip.PrefixFrom(v4, p.v4.Bits())),
		address("giving the sandbox its IPv6 address", indexSandbox, netip.PrefixFrom(v6, p.v6.Bits())),
		localRoute(indexSandbox, v6),
		route{what: "routing the sandbox's traffic", to: anywhere4, kind: unix.RTN_UNICAST, index: indexSandbox, via: p.gw4}.request(),
		route{what: "routing the sandbox's IPv6 traffic", to: anywhere6, kind: unix.RTN_UNICAST, index: indexSandbox, via: p.gw6}.request(),
	}
}

// freeSourceChecks leaves source checks (RFC 3704) to each link's own setting, which counts only if that of all links
// is not stricter; namespaces begin with the host's. It runs in the router namespace.
func freeSourceChecks() error {
	const file = "/proc/sys/net/ipv4/conf/all/rp_filter"
	if b, err := os.ReadFile(file); err == nil && len(b) > 0 && b[0] == '0' {
		return nil
	}
	if err := procfs.Write(file, "0"); err != nil {
		return fmt.Errorf("leaving source checks to each link: %w", err)
	}
	return nil
}

// triesSettings say how often a kernel sends a SYN, and so when it gives up: tcp(7), ip-sysctl.rst.
var triesSettings = [...]string{"tcp_syn_retries", "tcp_syn_linear_timeouts"}

// tries are the values of triesSettings. A kernel before 6.5 lacks the second.
type tries [len(triesSettings)]string

// readTries returns those of the calling thread's namespace.
func readTries() (t tries) {
	for i, name := range triesSettings {
		b, _ := os.ReadFile("/proc/sys/net/ipv4/" + name)
		t[i] = string(b)
	}
	return t
}

// tryAs has the calling thread's namespace, which is new and has values fresh, try to connect as often as the host: then an
// app learns of who never answers from its own kernel and when the host gives up, as it would there. A failure leaves the kernel's
// choice.
func tryAs(host, fresh tries) {
	for i, name := range triesSettings {
		if host[i] != fresh[i] {
			_ = procfs.Write("/proc/sys/net/ipv4/"+name, host[i])
		}
	}
}

// forgetEnded has the router's kernel keep no memory of connections that have ended (TIME_WAIT). Nothing is delayed or sent
// twice on its links, which is what that is for. But a SYN from an app that uses its port again would be taken for the
// remembered connection's (tcp_v4_early_demux), and what belongs to a socket is not forwarded: it would never get to
// the uplink.
func forgetEnded() error {
	if err := procfs.Write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0"); err != nil {
		return fmt.Errorf("keeping ended connections from being remembered: %w", err)
	}
	return nil
}

// forwardIPv6 lets the router pass IPv6 on, which has no netlink message. It runs in the router namespace; /proc/sys
// shows the caller's namespace.
func forwardIPv6() error {
	if err := procfs.Write("/proc/sys/net/ipv6/conf/all/forwarding", "1"); err != nil {
		return fmt.Errorf("switching IPv6 forwarding on: %w", err)
	}
	return nil
}

// plainCongestion chooses Reno (RFC 5681) for the connections of the calling thread's namespace. They end on this machine,
// where nothing is lost or delayed; what the host has chosen for the world may be slow here: BBR paces by timers.
// Reno is in every kernel. A failure leaves the host's choice.
func plainCongestion() {
	_ = procfs.Write("/proc/sys/net/ipv4/tcp_congestion_control", "reno")
}
