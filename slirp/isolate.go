package slirp

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/mend"
)

// IsolationError says why the kernel cannot keep the sandboxes of a network from each other.
type IsolationError struct{ Err error }

func (e *IsolationError) Error() string {
	return fmt.Sprintf("keeping sandboxes of one network apart: %v", e.Err)
}

// Unwrap returns the reason.
func (e *IsolationError) Unwrap() error { return e.Err }

// Hint is what the user can do about it.
func (e *IsolationError) Hint() string {
	return mend.More(mend.Here().Modules(mend.ApartModules()...) + "; or leave isolate and networks out")
}

// defaultGroup is the group of sandboxes that name none.
const defaultGroup = "default"

// mayReach reports whether one sandbox may open connections to another: they must share a group, and if either is
// isolated, the one must have named the other.
func mayReach(from, to *Endpoint) bool {
	if from == to {
		return true
	}
	if !slices.ContainsFunc(from.groupsOf(), func(g string) bool { return slices.Contains(to.groupsOf(), g) }) {
		return false
	}
	if !from.isolate && !to.isolate {
		return true
	}
	return slices.ContainsFunc(from.reaches, func(name string) bool { return slices.Contains(to.names(), name) })
}

// namesOf writes names as Endpoint.names has them: db.shop is db in the network shop.
func (n *names) namesOf(reaches []string) []string {
	out := make([]string, len(reaches))
	for i, name := range reaches {
		out[i] = canonical(name)
		if n.network != "" {
			out[i] = strings.TrimSuffix(out[i], "."+n.network)
		}
	}
	return out
}

func (e *Endpoint) groupsOf() []string {
	if len(e.groups) == 0 {
		return []string{defaultGroup}
	}
	return e.groups
}

// linkPair is a direction between two sandboxes, by the numbers of their links in the router. Unlike an address, a link
// cannot be pretended to, and its number is never used again.
type linkPair struct{ from, to int }

// wallPlan lists the directions in which connections may be opened.
func wallPlan(all []*Endpoint) []linkPair {
	var out []linkPair
	for _, from := range all {
		for _, to := range all {
			if from != to && mayReach(from, to) {
				out = append(out, linkPair{from.index, to.index})
			}
		}
	}
	slices.SortFunc(out, func(a, b linkPair) int { return cmp.Or(a.from-b.from, a.to-b.to) })
	return out
}

// wallDiff says what must be added to and taken from what is there.
func wallDiff(have map[linkPair]bool, want []linkPair) (add, remove []linkPair) {
	wanted := make(map[linkPair]bool, len(want))
	for _, p := range want {
		wanted[p] = true
		if !have[p] {
			add = append(add, p)
		}
	}
	for p := range have {
		if !wanted[p] {
			remove = append(remove, p)
		}
	}
	return add, remove
}

// wall keeps sandboxes of one network apart, in the router's kernel. It is made at the first need: connection tracking
// costs every packet something. It is used on the router's thread only, and goes with its namespace.
//
//	            ┌─ from or to the uplink ────────────────▶ accept: the policy decides there
//	forward ────┼─ from link a to link b, in pairs ──────▶ accept
//	            ├─ a reply, and its opposite is in pairs ▶ accept
//	            └─ anything else ────────────────────────▶ TCP reset, or administratively prohibited
type wall struct {
	table *nftables.Table
	pairs *nftables.Set
	have  map[linkPair]bool
}

// enforce brings the wall up to date with the sandboxes there are; it makes the wall if it is needed. It runs on the
// router's thread.
func (n *Network) enforce() error {
	n.mu.Lock()
	if !n.walled {
		n.mu.Unlock()
		return nil
	}
	all := slices.Collect(maps.Values(n.endpoints))
	n.mu.Unlock()
	want := wallPlan(all)
	if n.wall == nil {
		w, err := newWall(n.plan, want)
		if err != nil {
			return &IsolationError{err}
		}
		n.wall = w
		return nil
	}
	if err := n.wall.update(want); err != nil {
		return &IsolationError{err}
	}
	return nil
}

// newWall adds the whole table in one go, so that nothing passes it half made.
func newWall(p plan, want []linkPair) (*wall, error) {
	c, err := openTables()
	if err != nil {
		return nil, fmt.Errorf("adding nftables rules: nf_tables is missing: %w", err)
	}
	w := &wall{table: c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "whisk-apps"}), have: map[linkPair]bool{}}
	w.pairs = &nftables.Set{Table: w.table, Name: "pairs", KeyType: nftables.MustConcatSetType(nftables.TypeIFIndex, nftables.TypeIFIndex)}
	if err := c.AddSet(w.pairs, nil); err != nil {
		return nil, fmt.Errorf("adding a set to nftables: %w", err)
	}
	for _, chain := range wallChains(p, w.pairs) {
		policy := chain.policy
		at := c.AddChain(&nftables.Chain{Name: chain.name, Table: w.table, Type: nftables.ChainTypeFilter, Hooknum: chain.hook, Priority: chain.priority, Policy: &policy})
		for _, r := range chain.rules {
			c.AddRule(&nftables.Rule{Table: w.table, Chain: at, Exprs: r.exprs, UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment)})
		}
	}
	if err := w.change(c, want); err != nil {
		if missing := missingForWall(); missing != nil {
			err = missing
		}
		return nil, fmt.Errorf("adding nftables rules: %w", err)
	}
	return w, nil
}

// update changes the directions that are open.
func (w *wall) update(want []linkPair) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	if err := w.change(c, want); err != nil {
		return fmt.Errorf("changing nftables rules: %w", err)
	}
	return nil
}

// maxElements bounds what one netlink attribute, of 64 KiB at most, has to hold.
const maxElements = 1024

// change sends what has been prepared together with the change of directions.
func (w *wall) change(c *nftables.Conn, want []linkPair) error {
	add, remove := wallDiff(w.have, want)
	for part := range slices.Chunk(add, maxElements) {
		if err := c.SetAddElements(w.pairs, pairElements(part)); err != nil {
			return err
		}
	}
	for part := range slices.Chunk(remove, maxElements) {
		if err := c.SetDeleteElements(w.pairs, pairElements(part)); err != nil {
			return err
		}
	}
	if err := c.Flush(); err != nil {
		return err
	}
	for _, p := range add {
		w.have[p] = true
	}
	for _, p := range remove {
		delete(w.have, p)
	}
	return nil
}

func pairElements(pairs []linkPair) []nftables.SetElement {
	out := make([]nftables.SetElement, len(pairs))
	for i, p := range pairs {
		out[i].Key = append(binaryutil.NativeEndian.PutUint32(uint32(p.from)), binaryutil.NativeEndian.PutUint32(uint32(p.to))...)
	}
	return out
}

// nftChain is a base chain with its rules.
type nftChain struct {
	name     string
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
	policy   nftables.ChainPolicy
	rules    []nftRule
}

// wallChains are the wall itself, and two that keep everything but what apps say to each other out of connection
// tracking, so that the ways out and in cost what they do without.
func wallChains(p plan, pairs *nftables.Set) []nftChain {
	// Two registers of 32 bits that follow each other make the key: register 1 begins where NFT_REG32_00 is.
	const first, second = unix.NFT_REG32_00, unix.NFT_REG32_01
	number := func(i int) []byte { return binaryutil.NativeEndian.PutUint32(uint32(i)) }
	load := func(key expr.MetaKey, register uint32) expr.Any { return &expr.Meta{Key: key, Register: register} }
	compare := func(op expr.CmpOp, data []byte) expr.Any { return &expr.Cmp{Op: op, Register: first, Data: data} }
	open := func(from, to expr.MetaKey) []expr.Any {
		return []expr.Any{load(from, first), load(to, second), &expr.Lookup{SourceRegister: first, SetName: pairs.Name, SetID: pairs.ID}}
	}
	accept := &expr.Verdict{Kind: expr.VerdictAccept}
	rule := func(comment string, exprs ...expr.Any) nftRule { return nftRule{comment, exprs} }
	const replyDirection = 1 // IP_CT_DIR_REPLY, linux/netfilter/nf_conntrack_tuple_common.h
	states := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	zero := make([]byte, 4)
	forward := []nftRule{
		rule("what comes from the uplink has passed the egress policy", load(expr.MetaKeyIIF, first), compare(expr.CmpOpEq, number(indexNear)), accept),
		rule("what leaves by the uplink comes to the egress policy", load(expr.MetaKeyOIF, first), compare(expr.CmpOpEq, number(indexNear)), accept),
		rule("apps that may reach each other", append(open(expr.MetaKeyIIF, expr.MetaKeyOIF), accept)...),
		rule("replies to those", append([]expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: first},
			&expr.Bitwise{SourceRegister: first, DestRegister: first, Len: 4, Mask: states, Xor: zero},
			compare(expr.CmpOpNeq, zero),
			&expr.Ct{Key: expr.CtKeyDIRECTION, Register: first},
			compare(expr.CmpOpEq, []byte{replyDirection}),
		}, append(open(expr.MetaKeyOIF, expr.MetaKeyIIF), accept)...)...),
		rule("other TCP ends at once", load(expr.MetaKeyL4PROTO, first), compare(expr.CmpOpEq, []byte{protoTCP}),
			&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}),
		rule("anything else is prohibited", &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}),
	}
	track := []nftRule{rule("whisk's own are not tracked", load(expr.MetaKeyIIF, first), compare(expr.CmpOpEq, number(indexNear)), &expr.Notrack{}, accept)}
	for _, f := range []struct {
		family  byte
		offset  uint32 // of the destination address: RFC 791 §3.1, RFC 8200 §3
		subnet  netip.Prefix
		gateway netip.Addr
	}{{unix.NFPROTO_IPV4, 16, p.v4, p.gw4}, {unix.NFPROTO_IPV6, 24, p.v6, p.gw6}} {
		bytes := uint32(f.gateway.BitLen() / 8)
		destination := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: bytes}
		track = append(track, rule("from app to app is tracked", load(expr.MetaKeyNFPROTO, first), compare(expr.CmpOpEq, []byte{f.family}),
			destination, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: f.gateway.AsSlice()},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: bytes, Mask: maskOf(f.subnet), Xor: make([]byte, bytes)},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: f.subnet.Masked().Addr().AsSlice()}, accept))
	}
	track = append(track, rule("nothing else is", &expr.Notrack{}))
	return []nftChain{
		{"track", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, nftables.ChainPolicyAccept, track},
		{"track-own", nftables.ChainHookOutput, nftables.ChainPriorityRaw, nftables.ChainPolicyAccept, []nftRule{rule("whisk's own are not tracked", &expr.Notrack{})}},
		{"forward", nftables.ChainHookForward, nftables.ChainPriorityFilter, nftables.ChainPolicyDrop, forward},
	}
}

func maskOf(p netip.Prefix) []byte {
	mask := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return mask
}

// missingForWall tries the kernel's parts one by one and names the first that is not there; nil if it finds none. It runs
// on the router's thread.
func missingForWall() error {
	for _, part := range []struct {
		name string
		expr expr.Any
	}{
		{"nf_tables", &expr.Verdict{Kind: expr.VerdictAccept}},
		{"connection tracking (nft_ct, nf_conntrack)", &expr.Ct{Key: expr.CtKeySTATE, Register: 1}},
		{"nft_reject_inet", &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}},
	} {
		c, err := openTables()
		if err != nil {
			return fmt.Errorf("%s is missing: %w", part.name, err)
		}
		t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "whisk-try"})
		chain := c.AddChain(&nftables.Chain{Name: "try", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{part.expr}})
		c.DelTable(t)
		if err := c.Flush(); err != nil {
			return fmt.Errorf("%s is missing: %w", part.name, err)
		}
	}
	return nil
}
