package slirp

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// request is one rtnetlink(7) message and the words for the error it may earn.
type request struct {
	what string
	msg  *nl.NetlinkRequest
}

func newRequest(what string, kind, flags int, data ...nl.NetlinkRequestData) request {
	m := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	for _, d := range data {
		m.AddData(d)
	}
	return request{what, m}
}

// routeSocket is a rtnetlink socket of one network namespace. It sends whole plans in one message and reads the
// acknowledgements together, which is why the netlink library's one call per request is not used: setting a
// sandbox's links up takes eight requests, and every one would cost two system calls and a scheduling round.
type routeSocket struct{ fd int }

// openRouteSocket opens a socket in the calling thread's network namespace.
func openRouteSocket() (*routeSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening rtnetlink: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("binding rtnetlink: %w", err)
	}
	return &routeSocket{fd}, nil
}

func (s *routeSocket) close() { unix.Close(s.fd) }

// run sends all requests at once and returns the first that the kernel refused. The kernel works through the whole
// batch even after a refusal; the caller takes the links down, and with them what was made.
func (s *routeSocket) run(batch ...request) error {
	var out []byte
	what := make(map[uint32]string, len(batch))
	for _, r := range batch {
		out = append(out, r.msg.Serialize()...)
		what[r.msg.Seq] = r.what
	}
	if err := unix.Sendto(s.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("sending to rtnetlink: %w", err)
	}
	var first error
	buf := make([]byte, 32<<10)
	for len(what) > 0 {
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading from rtnetlink: %w", err)
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return fmt.Errorf("reading from rtnetlink: %w", err)
		}
		for _, m := range msgs {
			w, ours := what[m.Header.Seq]
			if !ours || m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 {
				continue
			}
			delete(what, m.Header.Seq)
			if errno := int32(nl.NativeEndian().Uint32(m.Data[:4])); errno != 0 && first == nil {
				first = fmt.Errorf("%s: %w", w, unix.Errno(-errno))
			}
		}
	}
	return first
}

const (
	operUp = 6 // IF_OPER_UP, linux/if.h

	// The kernel's work queue takes tens of microseconds, more on a machine under load.
	linkWait = 2 * time.Second
	linkPoll = 50 * time.Microsecond
)

// await waits until a link whose peer came up later may send. Until a work queue of the kernel's has run, such a link
// drops what it is given, although it says that it is up: the first SYN would be lost, and the app wait a second for
// the next. Kernels from 6.8 on catch up when they are asked.
func (s *routeSocket) await(index int) error {
	for end := time.Now().Add(linkWait); ; time.Sleep(linkPoll) {
		up, err := s.operational(index)
		if err != nil {
			return fmt.Errorf("waiting for the link: %w", err)
		}
		if up {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("waiting for the link: not up after %v", linkWait)
		}
	}
}

func (s *routeSocket) operational(index int) (bool, error) {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	r := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	r.AddData(msg)
	if err := unix.Sendto(s.fd, r.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, err
	}
	buf := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, err
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return false, err
		}
		for i, m := range msgs {
			switch {
			case m.Header.Seq != r.Seq:
			case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
				return false, unix.Errno(-int32(nl.NativeEndian().Uint32(m.Data[:4])))
			case m.Header.Type == unix.RTM_NEWLINK:
				attrs, err := syscall.ParseNetlinkRouteAttr(&msgs[i])
				if err != nil {
					return false, err
				}
				for _, a := range attrs {
					if a.Attr.Type == unix.IFLA_OPERSTATE && len(a.Value) == 1 {
						return a.Value[0] == operUp, nil
					}
				}
				return false, errors.New("the kernel does not say whether the link is up")
			}
		}
	}
}
