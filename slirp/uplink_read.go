package slirp

import (
	"errors"
	"fmt"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// uplinkBatch is how many packets are taken at once: a datagram costs less than the system call that would fetch it.
const uplinkBatch = 32

// batch is room for packets of the uplink's (recvmmsg(2)).
type batch struct {
	memory  []byte // uplinkBatch frames of maxFrame bytes, not of Go's: most pages of it are never touched
	vectors [uplinkBatch]unix.Iovec
	headers [uplinkBatch]struct {
		unix.Msghdr
		n uint32
		_ [4]byte
	}
}

func newBatch() (*batch, error) {
	memory, err := unix.Mmap(-1, 0, uplinkBatch*maxFrame, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("getting memory for packets: %w", err)
	}
	_ = unix.Madvise(memory, unix.MADV_NOHUGEPAGE) // a kernel without huge pages refuses
	b := &batch{memory: memory}
	for i := range b.headers {
		b.vectors[i] = iovec(b.frame(i, maxFrame))
		b.headers[i].Iov = &b.vectors[i]
		b.headers[i].SetIovlen(1)
	}
	return b, nil
}

func (b *batch) close() { _ = unix.Munmap(b.memory) }

func (b *batch) frame(i int, n uint32) []byte { return b.memory[i*maxFrame:][:n:n] }

// packet returns the i-th IP packet of those that read has counted; nil if it is too short to be one.
func (b *batch) packet(i int) []byte {
	if n := b.headers[i].n; n > frameHeader {
		return b.frame(i, n)[frameHeader:]
	}
	return nil
}

// read waits for packets and returns how many there are, 1 to uplinkBatch. The error is final.
func (u *uplink) read(b *batch) (n int, err error) {
	var errno unix.Errno
	for {
		err := u.raw.Read(func(fd uintptr) bool {
			var m uintptr
			m, _, errno = unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.headers[0])), uplinkBatch, unix.MSG_DONTWAIT, 0, 0)
			n = int(m)
			return errno != unix.EAGAIN
		})
		switch {
		case errors.Is(err, os.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
			return 0, net.ErrClosed
		case err != nil:
			return 0, fmt.Errorf("reading the uplink: %w", err)
		case errno == 0:
			return n, nil
		case errno == unix.EINVAL, errno == unix.ENETDOWN, errno == unix.EINTR:
			// one packet that the header cannot describe, or the link just going up or down
		default:
			return 0, fmt.Errorf("reading the uplink: %w", errno)
		}
	}
}
