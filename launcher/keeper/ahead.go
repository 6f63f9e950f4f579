package keeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/slirp"
)

// ahead is what of a sandbox can be made before its image is known: its namespaces, joined to the network. Both take
// the kernel a few milliseconds, in which the image is looked up and the root is built.
type ahead struct {
	namespaces chan made[*launcher.Namespaces]
	endpoint   chan made[*slirp.Endpoint] // nothing for a sandbox without a network
	attach     func() (*slirp.Endpoint, error)
}

// made is a thing or why it is not there.
type made[T any] struct {
	it  T
	err error
}

// goAhead begins. What comes of it must be taken by launch or given to drop. wish is the address of an earlier start.
func (s *server) goAhead(spec *launcher.Spec, wish netip.Addr) *ahead {
	a := &ahead{namespaces: make(chan made[*launcher.Namespaces], 1), endpoint: make(chan made[*slirp.Endpoint], 1)}
	network := make(chan made[*slirp.Network], 1)
	joined := spec.Network != "none"
	if joined {
		go func() {
			n, err := s.network(s.ctx, spec.NetworkPolicy())
			network <- made[*slirp.Network]{n, err}
		}()
	}
	options := slirp.AttachOptions{
		Name: spec.NetworkName(), Aliases: slices.Concat([]string{spec.ID}, spec.Aliases, spec.App.Aliases), IPv4: wish,
		Groups: spec.App.Networks, Isolate: spec.Isolate, Reaches: slices.Concat(spec.App.DependsOn, spec.App.Links),
		Egress: cmp.Or(spec.App.Egress, spec.Egress), HostPorts: spec.App.HostPorts,
	}
	if h := spec.App.Hostname; h != "" && h != options.Name {
		options.Aliases = append(options.Aliases, h)
	}
	go func() {
		ns, err := launcher.NewNamespaces()
		a.namespaces <- made[*launcher.Namespaces]{ns, err}
		if err != nil || !joined {
			a.endpoint <- made[*slirp.Endpoint]{nil, err}
			return
		}
		n := <-network
		if n.err != nil {
			a.endpoint <- made[*slirp.Endpoint]{nil, fmt.Errorf("make network: %w", n.err)}
			return
		}
		options.Isolate = options.Isolate || s.settings.Isolate
		options.NetNS = int(ns.NetNS().Fd())
		a.attach = func() (*slirp.Endpoint, error) {
			ep, err := n.it.Attach(s.ctx, options)
			if err != nil {
				return nil, fmt.Errorf("join network: %w", err)
			}
			return ep, nil
		}
		ep, err := a.attach()
		a.endpoint <- made[*slirp.Endpoint]{ep, err}
	}()
	return a
}

// nameWait is how long another may hold a name that our record has: one that wanted it, too, and has come too late.
const nameWait = 500 * time.Millisecond

// join waits for the endpoint.
func (a *ahead) join(ctx context.Context) (*slirp.Endpoint, error) {
	var ep made[*slirp.Endpoint]
	select {
	case ep = <-a.endpoint:
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), a.leave())
	}
	for end := time.Now().Add(nameWait); errors.Is(ep.err, slirp.ErrNameTaken) && time.Now().Before(end) && ctx.Err() == nil; {
		time.Sleep(5 * time.Millisecond)
		ep.it, ep.err = a.attach()
	}
	return ep.it, ep.err
}

// leave takes back the endpoint, whose namespace must live until it has been made.
func (a *ahead) leave() error {
	if ep := <-a.endpoint; ep.it != nil {
		return ep.it.Close()
	}
	return nil
}

// drop takes everything back.
func (a *ahead) drop() {
	_ = a.leave() // it is unwanted, however it ends
	if ns := <-a.namespaces; ns.it != nil {
		ns.it.Close()
	}
}
