package slirp

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxDatagram is more than any UDP payload.
const maxDatagram = 1 << 16

// datagrams lends buffers to readers of sockets, for as long as a datagram is in hand: a waiting session holds none.
type datagrams struct{ pool sync.Pool }

func (d *datagrams) get() *[maxDatagram]byte {
	if b, ok := d.pool.Get().(*[maxDatagram]byte); ok {
		return b
	}
	return new([maxDatagram]byte)
}

// socket is a connected datagram socket.
type socket interface {
	net.Conn
	syscall.Conn
}

// receive calls deliver for every datagram that c gets, until expiry has passed or c is closed. An error that the network
// reported, such as ECONNREFUSED, goes to failed, which says whether to go on.
func (d *datagrams) receive(c socket, expiry func() time.Time, deliver func([]byte), failed func(error) bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	for {
		if err := c.SetReadDeadline(expiry()); err != nil {
			return
		}
		var b *[maxDatagram]byte
		var n int
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			b = d.get()
			for {
				n, _, rerr = unix.Recvfrom(int(fd), b[:], unix.MSG_DONTWAIT)
				if !errors.Is(rerr, unix.EINTR) {
					break
				}
			}
			if errors.Is(rerr, unix.EAGAIN) {
				d.pool.Put(b)
				b = nil
				return false
			}
			return true
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if time.Now().Before(expiry()) {
				continue // used meanwhile
			}
			return
		case err != nil:
			return
		}
		if rerr == nil {
			deliver(b[:n])
		}
		d.pool.Put(b)
		if rerr != nil && !failed(rerr) {
			return
		}
	}
}
