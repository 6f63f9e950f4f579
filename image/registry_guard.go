package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// A registry elsewhere must not send whisk to services of this machine or its cloud, be it by a redirect, by the realm
// where it wants a token fetched, or by a name that stands for such an address. So a request is looked at twice: by its
// URL before it is sent (wire), and by the address when a connection is made (guardedDial).

// innerError is a way to this machine's own services.
type innerError struct{ to string }

// Error implements error.
func (e *innerError) Error() string {
	return "it leads to " + brief(e.to) + ", which only this machine should reach"
}

// plainError is a redirect from https to plain http.
type plainError struct{ to string }

// Error implements error.
func (e *plainError) Error() string { return "it redirects to " + brief(e.to) + " over plain http" }

// errRedirect is a redirect that is not followed.
var errRedirect = errors.New("it redirects in circles")

// follow decides about a redirect. The credentials stay behind: the transport adds them only to what goes to the registry.
func follow(r *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errRedirect
	}
	if s := r.URL.Scheme; s != "https" && s != "http" {
		return fmt.Errorf("it redirects to a %q address", brief(s))
	}
	return nil
}

// isLoopback tells whether host[:port] is on this machine's loopback device.
func isLoopback(host string) bool {
	host = hostOf(host)
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// isInner tells whether host[:port] says by itself that it is this machine, or its cloud's service for it.
func isInner(host string) bool {
	host = hostOf(host)
	if a, err := netip.ParseAddr(host); err == nil {
		return innerAddress(a)
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

func hostOf(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// innerAddress tells whether an address is one that only this machine reaches: loopback, link-local (clouds answer their
// machines' questions there), or unspecified, which connects to loopback.
func innerAddress(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified()
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// guardedDial makes connections. The registry's first may go anywhere, and to a proxy that the user has set each may. What
// else a registry names is not at an inner address, unless the registry is itself: neither is its own name from then on,
// which may have become another address's. names answers first, if it is not nil: a connection, an error or neither.
func guardedDial(registry string, proxy func(*http.Request) (*url.URL, error), names dialFunc) dialFunc {
	open := (&net.Dialer{Timeout: dialTimeout}).DialContext
	guarded := (&net.Dialer{Timeout: dialTimeout, Control: refuseInner}).DialContext
	proxies := map[string]bool{}
	for _, host := range []string{registry, "other.invalid"} { // no_proxy may have the registry
		for _, scheme := range []string{"http", "https"} {
			u, err := proxy(&http.Request{URL: &url.URL{Scheme: scheme, Host: host}})
			if err == nil && u != nil {
				proxies[hostOf(u.Host)] = true
			}
		}
	}
	var inner, asked atomic.Bool
	inner.Store(isInner(registry))
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if names != nil {
			if c, err := names(ctx, network, address); c != nil || err != nil {
				return c, err
			}
		}
		switch {
		case inner.Load(), proxies[hostOf(address)], !wall.Up("registry redirects"):
			return open(ctx, network, address)
		case hostOf(address) == hostOf(registry) && !asked.Load():
			c, err := open(ctx, network, address)
			if err != nil {
				return nil, err
			}
			if a, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil && innerAddress(a.Addr()) {
				inner.Store(true)
			}
			asked.Store(true)
			return c, nil
		}
		return guarded(ctx, network, address)
	}
}

// refuseInner is a net.Dialer's Control, which sees the address that a name stood for.
func refuseInner(_, address string, _ syscall.RawConn) error {
	if a, err := netip.ParseAddrPort(address); err == nil && innerAddress(a.Addr()) {
		return &innerError{address}
	}
	return nil
}
