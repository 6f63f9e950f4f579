package launcher

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Loopback brings the loopback device up, for a sandbox that no network will be joined to.
func (s *Sandbox) Loopback() error {
	return s.do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("bring loopback up: %w", err)
		}
		defer unix.Close(fd)
		req, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
			return fmt.Errorf("bring loopback up: %w", err)
		}
		return nil
	})
}

// HostLine is one address and its names in /etc/hosts, hosts(5).
type HostLine struct {
	Addr  string
	Names []string
}

// Names writes the sandbox's /etc/hosts, /etc/resolv.conf and /etc/hostname. It may be called again while the
// sandbox runs.
func (s *Sandbox) Names(hosts []HostLine, nameservers []string, search string) error {
	var h strings.Builder
	h.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, l := range hosts {
		fmt.Fprintf(&h, "%s\t%s\n", l.Addr, strings.Join(l.Names, " "))
	}
	var r strings.Builder
	if search != "" {
		fmt.Fprintf(&r, "search %s\n", search)
	}
	for _, n := range nameservers {
		fmt.Fprintf(&r, "nameserver %s\n", n)
	}
	for name, text := range map[string]string{"hosts": h.String(), "resolv.conf": r.String(), "hostname": s.plan.hostname + "\n"} {
		// In place: the file is mounted in the sandbox, and a mount follows the inode.
		if err := os.WriteFile(s.b.file(name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}
