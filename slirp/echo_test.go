package slirp

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ping sends one echo request and returns the reply's data.
func ping(t *testing.T, ns *namespace, to string, seq byte, data []byte) ([]byte, error) {
	t.Helper()
	var c socket
	// A ping socket of the sandbox's own, whose ping_group_range lets the test in.
	err := ns.do(func() (err error) {
		if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
			return err
		}
		c, err = dialPing(netip.MustParseAddr(to))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	kind, level, option := byte(8), unix.IPPROTO_IP, unix.IP_RECVERR
	if netip.MustParseAddr(to).Is6() {
		kind, level, option = 128, unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	// As ping(8) does: without it the kernel keeps all but final errors to itself.
	if err := raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), level, option, 1) }); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(append([]byte{kind, 0, 0, 0, 0, 0, 0, seq}, data...)); err != nil {
		return nil, err
	}
	b := make([]byte, 1<<16)
	n, err := c.Read(b)
	if err != nil {
		return nil, err
	}
	if b[7] != seq {
		t.Errorf("reply to sequence number %d, want %d", b[7], seq)
	}
	return b[8:n], nil
}

func TestPing(t *testing.T) {
	n := newNetwork(t)
	app, e := newSandbox(t, n, "web")
	other, _ := newSandbox(t, n, "db")
	gw4, gw6 := n.Gateway()
	for i, to := range []string{inetV4, inetV6, gw4.String(), gw6.String()} {
		for _, size := range []int{0, 56, 8000} {
			data := bytes.Repeat([]byte{byte(size)}, size)
			got, err := ping(t, app, to, byte(i+1), data)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("ping of %d bytes to %s: got %d, %v", size, to, len(got), err)
			}
		}
	}
	if _, err := ping(t, other, e.IPv6().String(), 1, nil); err != nil {
		t.Errorf("ping to another app: %v", err)
	}
	for _, to := range []string{"203.0.113.129", "2001:db8:bad::1"} {
		if _, err := ping(t, app, to, 1, nil); !errors.Is(err, unix.EHOSTUNREACH) {
			t.Errorf("ping to %s: got %v, want unreachable", to, err)
		}
	}
	for _, to := range []string{hostV4, hostV6} {
		if _, err := ping(t, app, to, 1, nil); !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) {
			t.Errorf("ping to the host at %s: got %v, want prohibited", to, err)
		}
	}
}

// The kernel's default leaves everybody out, and cannot be set again once changed here; so the test has a child of its
// own, whose world leaves it alone.
func TestPingForbiddenByTheHostIsNoReply(t *testing.T) {
	if os.Getenv(noPingEnv) == "" {
		cmd := insideCommand("-test.run=^" + t.Name() + "$")
		cmd.Env = append(cmd.Env, noPingEnv+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	n := newNetwork(t)
	app, _ := newSandbox(t, n, "web")
	for _, to := range []string{inetV4, inetV6} {
		if _, err := ping(t, app, to, 1, nil); !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) {
			t.Errorf("ping to %s: got %v, want prohibited", to, err)
		}
	}
}
