package slirp

import (
	"os"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// TestTheKernelCarriesTCP guards against falling back in silence: this machine has what the fast path needs.
func TestTheKernelCarriesTCP(t *testing.T) {
	inet := internet(t)
	n := newNetwork(t)
	app, _ := newSandbox(t, n, "web")
	for _, a := range []string{inetV4, inetV6} {
		c := app.mustDial("tcp", at(a, portOf(inet.echoTCP("tcp", at(a, 0)))))
		roundTrip(t, c, []byte("x"))
	}
	if _, ok := n.gate.tcp.carrier.(*kernelTCP); !ok {
		t.Fatalf("TCP is carried by %T, want the kernel", n.gate.tcp.carrier)
	}
}

// TestSegmentThatMissedItsSocket has the rules look away for a moment, as the kernel's own lookup can: the segment that
// comes by then must not cost the connection.
func TestSegmentThatMissedItsSocket(t *testing.T) {
	inet := internet(t)
	n := newNetwork(t)
	app, _ := newSandbox(t, n, "web")
	c := app.mustDial("tcp", at(inetV4, portOf(inet.echoTCP("tcp", at(inetV4, 0)))))
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	roundTrip(t, c, []byte("before"))
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "whisk"}
	chain := &nftables.Chain{Name: "transparent", Table: table}
	change := func(f func(nft *nftables.Conn) error) {
		t.Helper()
		err := n.thread.do(func() error {
			nft, err := nftables.New()
			if err != nil {
				return err
			}
			return f(nft)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	change(func(nft *nftables.Conn) error {
		// Else the kernel would find the socket in another way, before it looks for a route.
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_early_demux", []byte("0"), 0); err != nil {
			return err
		}
		nft.InsertRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept}}})
		return nft.Flush()
	})
	if _, err := c.Write([]byte("while")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // an answer would be there by now
	change(func(nft *nftables.Conn) error {
		rules, err := nft.GetRules(table, chain)
		if err != nil {
			return err
		}
		if seen := rules[0].Exprs[0].(*expr.Counter).Packets; seen == 0 {
			t.Error("nothing came by: the test shows nothing")
		}
		if err := nft.DelRule(rules[0]); err != nil {
			return err
		}
		return nft.Flush()
	})
	got := make([]byte, 5)
	if _, err := c.Read(got); err != nil || string(got) != "while" {
		t.Errorf("got %q, %v; want what was sent", got, err)
	}
}
