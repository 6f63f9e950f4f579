package slirp

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/mend"
)

// Reasons for a PortError, to be found with errors.Is.
var (
	ErrPortInUse      = errors.New("port is in use")
	ErrPortPrivileged = errors.New("ports below net.ipv4.ip_unprivileged_port_start are closed to you")
	ErrNotLocal       = errors.New("address is not one of this machine's")
)

// PortError says why a host port could not be published.
type PortError struct {
	Addr     netip.AddrPort // on the host
	App      uint16         // port in the sandbox
	Protocol string         // "tcp" or "udp"
	Err      error          // one of the reasons above, or the kernel's error
}

func (e *PortError) Error() string {
	return fmt.Sprintf("listening on %s/%s: %v", e.Addr, e.Protocol, e.Err)
}

// Unwrap returns the reason.
func (e *PortError) Unwrap() error { return e.Err }

// Hint is what the user can do about it, in one line without a full stop; empty if nothing is known.
func (e *PortError) Hint() string {
	switch {
	case errors.Is(e.Err, ErrPortPrivileged):
		return fmt.Sprintf("publish %d:%d, or run: %s", unprivileged(e.Addr.Port()), e.App, mend.Here().Sysctl("net.ipv4.ip_unprivileged_port_start", strconv.Itoa(int(e.Addr.Port()))))
	case errors.Is(e.Err, ErrPortInUse):
		return fmt.Sprintf("find out who has it with: ss -ln 'sport = :%d'; or publish another port, or 0 for any free one", e.Addr.Port())
	case errors.Is(e.Err, ErrNotLocal):
		return "publish on an address that ip addr shows, or on 0.0.0.0 or [::] for all"
	}
	return ""
}

// unprivileged is the port that people use where they may not use p: 80 → 8080, 443 → 8443.
func unprivileged(p uint16) uint16 { return 8000 + p }

func newPortError(at netip.AddrPort, app uint16, protocol string, err error) *PortError {
	e := &PortError{Addr: at, App: app, Protocol: protocol, Err: err}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		e.Err = ErrPortInUse
	case errors.Is(err, unix.EACCES) && at.Port() != 0:
		e.Err = ErrPortPrivileged
	case errors.Is(err, unix.EADDRNOTAVAIL):
		e.Err = ErrNotLocal
	}
	return e
}

// linkGone reports whether err, of taking a link down, leaves nothing to do: no error, a link that went with its sandbox's
// namespace, or a network that is closed.
func linkGone(err error) bool {
	return err == nil || errors.Is(err, unix.ENODEV) || errors.Is(err, errThreadGone)
}
