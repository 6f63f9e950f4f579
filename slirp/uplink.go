package slirp

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	vnetHeaderSize = 10 // struct virtio_net_hdr
	frameHeader    = vnetHeaderSize + header.EthernetMinimumSize
	// A frame read is at most one large segment of 64 KiB; the kernel cuts what is longer at the receiver's request only
	// (gso_max_size, ip-link(8)).
	maxFrame = frameHeader + 1<<16

	vnetNeedsChecksum = 1
	vnetTCPv4         = 1
	vnetTCPv6         = 4
)

// uplink is the far end of the router's default route: a packet socket (packet(7)) with segmentation and checksums left
// undone in both directions (struct virtio_net_hdr), since both ends are the memory of one machine.
type uplink struct {
	file *os.File // in Go's poller; closing it ends reads and writes
	raw  syscall.RawConn
}

// openUplink opens the socket on the calling thread's namespace.
func openUplink() (_ *uplink, err error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	for _, o := range []struct {
		name  string
		level int
		opt   int
		value int
	}{
		{"PACKET_VNET_HDR", unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1},
		{"PACKET_IGNORE_OUTGOING", unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
		{"PACKET_QDISC_BYPASS", unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1},
		// As much as an ordinary user gets; the kernel cuts it to net.core.rmem_max.
		{"SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF, 8 << 20},
		{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, 8 << 20},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
			return nil, fmt.Errorf("setting %s on the uplink: %w", o.name, err)
		}
	}
	all := uint16(unix.ETH_P_ALL)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: indexFar}); err != nil {
		return nil, fmt.Errorf("binding the uplink: %w", err)
	}
	f := os.NewFile(uintptr(fd), "uplink")
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("polling the uplink: %w", err)
	}
	return &uplink{f, raw}, nil
}

func (u *uplink) close() { u.file.Close() }

// stopReading ends read, but lets what still has to be said be written.
func (u *uplink) stopReading() {
	_ = u.file.SetReadDeadline(time.Unix(1, 0)) // fails on a closed file only
}

// offload says what the kernel still has to do to a packet.
type offload struct {
	needsChecksum             bool
	checksumStart, checksumAt uint16 // from the IP header, and from there
	headerLen                 uint16
	segmentType               uint8 // vnetTCPv4, vnetTCPv6, or 0
	segmentSize               uint16
}

// write sends one IP packet, given in parts, to the router. What cannot be sent is lost, as on any wire.
func (u *uplink) write(o offload, parts ...[]byte) error {
	var head [frameHeader]byte
	if o.needsChecksum {
		head[0] = vnetNeedsChecksum
		binary.LittleEndian.PutUint16(head[6:], header.EthernetMinimumSize+o.checksumStart)
		binary.LittleEndian.PutUint16(head[8:], o.checksumAt)
	}
	if o.segmentType != 0 {
		head[1] = o.segmentType
		binary.LittleEndian.PutUint16(head[2:], header.EthernetMinimumSize+o.headerLen)
		binary.LittleEndian.PutUint16(head[4:], o.segmentSize)
	}
	eth := head[vnetHeaderSize:]
	copy(eth, macNear)
	copy(eth[6:], macFar)
	binary.BigEndian.PutUint16(eth[12:], unix.ETH_P_IP)
	if parts[0][0]>>4 == 6 {
		binary.BigEndian.PutUint16(eth[12:], unix.ETH_P_IPV6)
	}
	var store [8]unix.Iovec
	iov := append(store[:0], iovec(head[:]))
	for _, p := range parts {
		if len(p) > 0 {
			iov = append(iov, iovec(p))
		}
	}
	var errno unix.Errno
	err := u.raw.Write(func(fd uintptr) bool {
		for {
			_, _, errno = unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
			if errno != unix.EINTR {
				return errno != unix.EAGAIN
			}
		}
	})
	if err != nil {
		return err
	}
	if errno != 0 {
		return fmt.Errorf("writing to the uplink: %w", errno)
	}
	return nil
}

func iovec(b []byte) unix.Iovec {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	return v
}
