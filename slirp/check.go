package slirp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Kernel is what the kernel's nftables lack of what networks use; each is nil where nothing is lacking.
type Kernel struct {
	Tables error // nftables at all: without them, nothing of the following
	TProxy error // handing connections to a socket: TCP in the kernel, and not in user mode
	Socket error // finding the socket of a packet: the same
	Apart  error // connection tracking and rejecting: isolate, links and networks of whisk.toml
}

// CheckKernel adds the rules that networks add to the network namespace of the calling thread, which is to be thrown
// away: it must have no other use.
func CheckKernel() Kernel {
	var k Kernel
	if k.Tables = addRules("whisk-tables", nil); k.Tables != nil {
		return k
	}
	for _, r := range transparentRules([2]uint16{1, 1}) {
		to := &k.Socket
		if slices.ContainsFunc(r.exprs, func(e expr.Any) bool { _, ok := e.(*expr.TProxy); return ok }) {
			to = &k.TProxy
		}
		if *to == nil {
			*to = addRules("whisk-rules", []nftRule{r})
		}
	}
	_, k.Apart = newWall(plan{
		v4: netip.MustParsePrefix("10.0.0.0/24"), gw4: netip.MustParseAddr("10.0.0.1"),
		v6: netip.MustParsePrefix("fd00::/64"), gw6: netip.MustParseAddr("fd00::1"),
	}, nil)
	return k
}

// addRules adds a table of its own with these rules.
func addRules(name string, rules []nftRule) error {
	c, err := openTables()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: name})
	chain := c.AddChain(&nftables.Chain{Name: "transparent", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle})
	for _, r := range rules {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r.exprs})
	}
	return c.Flush()
}

// openTables is nftables.New for a kernel that may be without nf_tables. Such a one answers a batch with one error for
// all (nfnetlink_rcv_batch), and Flush, which waits for an answer to each message, would never return; so it is asked
// for something that has one answer first.
func openTables() (*nftables.Conn, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	_, err = c.ListTablesOfFamily(nftables.TableFamilyINet)
	if errors.Is(err, unix.EINVAL) { // nfnetlink_rcv_msg
		return nil, errors.New("the kernel loads no such module")
	}
	if err != nil {
		return nil, fmt.Errorf("listing nftables: %w", err)
	}
	return c, nil
}
