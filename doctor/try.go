package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Tried is what was tried inside a user namespace: of each, the kernel's word against it, or empty when it worked.
type Tried struct {
	Write   string `json:"write,omitempty"`   // making a folder where the store is
	Owner   string `json:"owner,omitempty"`   // giving a file there to id 1 of the namespace; not tried with one id
	Attr    string `json:"attr,omitempty"`    // an attribute user.overlay.* on a file there
	Overlay string `json:"overlay,omitempty"` // mounting overlayfs there, and writing to it
	Tables  string `json:"tables,omitempty"`  // an nf_tables table and chain, in a network namespace of its own
	TProxy  string `json:"tproxy,omitempty"`  // a rule with a tproxy statement
	Socket  string `json:"socket,omitempty"`  // a rule with a socket expression
	Ct      string `json:"ct,omitempty"`      // a rule with connection tracking, for --isolate
	Reject  string `json:"reject,omitempty"`  // a rule with a reject statement, for --isolate
	Store   string `json:"store,omitempty"`   // opening and listing the image store; not Try's, but its caller's
	Images  int    `json:"images"`            // how many it has
}

// Try is to be called as root of a user and mount namespace of its own; it leaves nothing behind in dir. single: there is no
// id but 0 to give files to. The calling goroutine's thread is used up for network namespaces.
func Try(dir string, single bool) *Tried {
	t := &Tried{}
	t.layers(dir, single)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never back: the thread is in another network namespace
		t.network()
	}()
	<-done
	return t
}

func word(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// layers tries what a sandbox's root takes of the file system, in a folder below dir that is removed.
func (t *Tried) layers(dir string, single bool) {
	top, err := os.MkdirTemp(dir, ".whisk-doctor-")
	if err != nil {
		t.Write = word(bare(err))
		return
	}
	defer func() {
		if err := os.RemoveAll(top); err != nil {
			t.Write = word(bare(err))
		}
	}()
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(top, name), 0o700); err != nil {
			t.Write = word(bare(err))
			return
		}
	}
	file := filepath.Join(top, "lower", "file")
	if err := os.WriteFile(file, []byte("lower"), 0o600); err != nil {
		t.Write = word(bare(err))
		return
	}
	if !single {
		t.Owner = word(bare(os.Chown(file, 1, 1)))
	}
	if err := unix.Setxattr(file, "user.overlay.whisk", []byte("y"), 0); err != nil {
		t.Attr = word(&os.PathError{Op: "setxattr", Path: filepath.Base(file), Err: err})
	}
	t.Overlay = word(mountLayers(top))
}

// mountLayers writes through an overlay to a file that is in its lower folder.
func mountLayers(top string) (err error) {
	at := func(name string) string { return filepath.Join(top, name) }
	data := "userxattr,lowerdir=" + at("lower") + ",upperdir=" + at("upper") + ",workdir=" + at("work")
	if err := unix.Mount("overlay", at("merged"), "overlay", unix.MS_NODEV|unix.MS_NOSUID, data); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Unmount(at("merged"), unix.MNT_DETACH)) }()
	f, err := os.OpenFile(at("merged/file"), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return bare(err)
	}
	_, err = f.WriteString("upper")
	return bare(errors.Join(err, f.Close()))
}

// bare drops a path that is gone by the time anybody reads of it.
func bare(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return fmt.Errorf("%s: %w", p.Op, p.Err)
	}
	return err
}

// network tries what a router takes, in a network namespace of its own.
func (t *Tried) network() {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Tables = "making a network namespace: " + err.Error()
		return
	}
	t.Tables = word(addRule("plain"))
	if t.Tables != "" {
		return
	}
	t.Socket = word(addRule("socket", &expr.Socket{Key: expr.SocketKeyTransparent, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}}))
	t.TProxy = word(addRule("tproxy",
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(1)},
		&expr.TProxy{Family: unix.NFPROTO_IPV4, TableFamily: unix.NFPROTO_INET, RegPort: 1}))
	t.Ct = word(addRule("ct", &expr.Ct{Register: 1, Key: expr.CtKeySTATE}))
	t.Reject = word(addRule("reject", &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}))
}

// addRule makes a table with one rule, as slirp's transparent rules are made. It goes with the namespace.
func addRule(name string, exprs ...expr.Any) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("opening nf_tables: %w", err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "doctor-" + name})
	chain := c.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle})
	if len(exprs) > 0 {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
	}
	return c.Flush()
}
