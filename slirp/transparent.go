package slirp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/whisk-sandbox/whisk/mend"
)

const (
	// transparentMark is put on packets that belong to one of whisk's own transparent sockets. Only rules of the router's
	// namespace set and read it.
	transparentMark = 0x77

	// transparentTable has one route in it: everything is local.
	transparentTable = 119
)

// transparent lets sockets in the router namespace speak with addresses that are not its own: towards an app as the
// destination that the app connected to, or as the client of a published port (IP_TRANSPARENT, ip(7)). Replies to such
// an address would leave by the default route; nftables marks them, and marked packets are delivered here.
//
// It is switched on at the first need, since the kernel takes a millisecond or more over the first rule of a namespace.
type transparent struct {
	thread *thread
	router *routeSocket
	log    *slog.Logger

	once      sync.Once
	err       error
	listeners [2]*net.TCPListener // IPv4, IPv6: where the SYNs go that whisk puts back on the uplink
}

// start switches it on. The error is final: this kernel lacks what is needed, and the log has what is lost by it.
func (t *transparent) start() error {
	t.once.Do(func() {
		if t.err = t.thread.do(t.apply); t.err != nil && !errors.Is(t.err, errThreadGone) {
			t.log.Warn("TCP goes through user mode, which is slower, and apps do not see their clients' addresses", "err", t.err,
				"hint", mend.Here().Modules(mend.FastModules()...))
		}
	})
	return t.err
}

func (t *transparent) close() {
	t.once.Do(func() { t.err = errThreadGone })
	for _, l := range t.listeners {
		if l != nil {
			l.Close()
		}
	}
}

func (t *transparent) apply() (err error) {
	var ports [2]uint16
	for i, a := range transparentAt {
		l, err := listenTransparent([]string{"tcp4", "tcp6"}[i], netip.AddrPortFrom(a, 0).String())
		if err != nil {
			return err
		}
		t.listeners[i] = l
		ports[i] = l.Addr().(*net.TCPAddr).AddrPort().Port()
	}
	if err := freeSourceChecks(); err != nil {
		return err
	}
	if err := forgetEnded(); err != nil {
		t.log.Warn("a connection from a port that an app has used for one to the same place within a minute waits", "err", err)
	}
	if err := t.router.run(transparentRoutes()...); err != nil {
		return err
	}
	return addTransparentRules(ports)
}

// transparentAt is where the listeners are: on the router's loopback, which no packet of a sandbox's can be for. On all
// addresses a listener would be there for who asks for its port on the router's own, and would keep that port from
// host_ports.
var transparentAt = [2]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// listenTransparent listens for what is handed to it, whatever address that is for. It runs on the router's thread.
func listenTransparent(network, address string) (*net.TCPListener, error) {
	lc := net.ListenConfig{KeepAlive: -1, Control: func(network, _ string, c syscall.RawConn) error {
		return setTransparent(c, network)
	}}
	lc.SetMultipathTCP(false) // splice(2) needs plain TCP
	l, err := lc.Listen(context.Background(), network, address)
	if err != nil {
		return nil, fmt.Errorf("listening for connections of apps: %w", err)
	}
	return l.(*net.TCPListener), nil
}

func setTransparent(c syscall.RawConn, network string) error {
	var serr error
	err := c.Control(func(fd uintptr) { serr = transparentSocket(int(fd), network == "tcp6") })
	return errors.Join(err, serr)
}

// transparentSocket lets a socket have any address.
func transparentSocket(fd int, six bool) error {
	if six {
		return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
}

// transparentRoutes deliver marked packets here, whatever their destination.
func transparentRoutes() []request {
	var out []request
	for _, to := range []netip.Prefix{anywhere4, anywhere6} {
		out = append(out,
			route{what: "receiving for all addresses", to: to, kind: unix.RTN_LOCAL, index: indexLoopback, table: transparentTable}.request(),
			markRule(to.Addr().Is6()))
	}
	return out
}

func markRule(six bool) request {
	msg := nl.NewRtMsg()
	msg.Family = unix.AF_INET
	if six {
		msg.Family = unix.AF_INET6
	}
	msg.Table = transparentTable
	msg.Type = unix.FR_ACT_TO_TBL
	return newRequest("routing marked packets", unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, msg,
		nl.NewRtAttr(nl.FRA_PRIORITY, nl.Uint32Attr(ruleMarked)),
		nl.NewRtAttr(nl.FRA_FWMARK, nl.Uint32Attr(transparentMark)),
		nl.NewRtAttr(nl.FRA_FWMASK, nl.Uint32Attr(transparentMark)))
}

// addTransparentRules marks what belongs to transparent sockets. It runs on the router's thread.
//
//	from the uplink, SYN       → tproxy to the listener, marked: only whisk writes there, and only when it has dialled
//	from anywhere else, no SYN → marked if a transparent socket has this connection
//
// A SYN from a sandbox is never marked: it must go to the uplink and through the policy, even if it is for the very
// port that the listener has.
func addTransparentRules(ports [2]uint16) error {
	c, err := openTables()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "whisk"})
	chain := c.AddChain(&nftables.Chain{Name: "transparent", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle})
	for _, r := range transparentRules(ports) {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r.exprs, UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment)})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("adding nftables rules: %w", err)
	}
	return nil
}

type nftRule struct {
	comment string
	exprs   []expr.Any
}

func transparentRules(ports [2]uint16) []nftRule {
	const flags = header.TCPFlagSyn | header.TCPFlagAck | header.TCPFlagRst
	uplink := func(op expr.CmpOp) []expr.Any {
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIF, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: binaryutil.NativeEndian.PutUint32(indexNear)}}
	}
	compare := func(op expr.CmpOp, key expr.MetaKey, value byte) []expr.Any {
		return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: []byte{value}}}
	}
	isTCP := compare(expr.CmpOpEq, expr.MetaKeyL4PROTO, protoTCP)
	synOnly := func(op expr.CmpOp) []expr.Any {
		return []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{byte(flags)}, Xor: []byte{0}},
			&expr.Cmp{Op: op, Register: 1, Data: []byte{byte(header.TCPFlagSyn)}},
		}
	}
	owned := []expr.Any{&expr.Socket{Key: expr.SocketKeyTransparent, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}}}
	mark := []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(transparentMark)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
	rule := func(comment string, parts ...[]expr.Any) nftRule {
		r := nftRule{comment: comment}
		for _, p := range parts {
			r.exprs = append(r.exprs, p...)
		}
		return r
	}
	var out []nftRule
	for i, family := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		out = append(out, rule("connections of apps that whisk has dialled", uplink(expr.CmpOpEq), isTCP, synOnly(expr.CmpOpEq),
			compare(expr.CmpOpEq, expr.MetaKeyNFPROTO, family),
			[]expr.Any{
				&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(ports[i])},
				&expr.Immediate{Register: 2, Data: transparentAt[i].AsSlice()},
				&expr.TProxy{Family: family, TableFamily: unix.NFPROTO_INET, RegPort: 1, RegAddr: 2},
			},
			mark))
	}
	return append(out,
		rule("what follows on them, and what apps answer to clients of published ports", uplink(expr.CmpOpNeq), isTCP, synOnly(expr.CmpOpNeq), owned, mark),
		// The socket that an ICMP error is about is found, too.
		rule("datagrams and errors that apps answer to clients of published ports", uplink(expr.CmpOpNeq), compare(expr.CmpOpNeq, expr.MetaKeyL4PROTO, protoTCP), owned, mark))
}
