package slirp

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	// maxTrain is the kernel's limit since the option is there (UDP_MAX_SEGMENTS; 128 since Linux 6.9).
	maxTrain = 64

	// maxTrainBytes keeps a train, with its headers, an IP packet.
	maxTrainBytes = 65000
)

// train is a row of datagrams of one flow, alike in size but for a shorter last one, which the kernel takes in one call
// and through its network stack as one (UDP_SEGMENT, udp(7), Linux 4.18).
type train struct {
	session *session
	packets []packet
	bytes   int
}

// add appends a datagram and reports true if it fits. Into an empty train, any does.
func (t *train) add(s *session, p packet) bool {
	size := len(p.transport) - header.UDPMinimumSize
	if n := len(t.packets); n > 0 {
		first := t.size(0)
		if t.session != s || s.alone || n == maxTrain || size == 0 || size > first || t.size(n-1) < first || t.bytes+size > maxTrainBytes {
			return false
		}
	}
	t.session, t.packets, t.bytes = s, append(t.packets, p), t.bytes+size
	return true
}

func (t *train) size(i int) int { return len(t.packets[i].transport) - header.UDPMinimumSize }

// send sends two and more datagrams at once, or none.
func (t *train) send() error {
	raw, err := t.session.conn.SyscallConn()
	if err != nil {
		return err
	}
	var control [24]byte // CMSG_SPACE(sizeof(uint16))
	cmsg := (*unix.Cmsghdr)(unsafe.Pointer(&control))
	cmsg.Level, cmsg.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	cmsg.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(control[unix.CmsgLen(0):], uint16(t.size(0)))
	var vectors [maxTrain]unix.Iovec
	for i, p := range t.packets {
		vectors[i] = iovec(p.transport[header.UDPMinimumSize:])
	}
	msg := unix.Msghdr{Iov: &vectors[0], Control: &control[0]}
	msg.SetIovlen(len(t.packets))
	msg.SetControllen(unix.CmsgSpace(2))
	var errno unix.Errno
	err = raw.Write(func(fd uintptr) bool {
		_, _, errno = unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&msg)), unix.MSG_NOSIGNAL)
		return errno != unix.EAGAIN
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}

// cannotSend reports whether an error of send says that datagrams of this flow must go one by one: the path is narrower than
// they are (EMSGSIZE, EINVAL), or its device does not do its part (EIO).
func cannotSend(err error) bool {
	return errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIO) || errors.Is(err, unix.EOPNOTSUPP)
}
