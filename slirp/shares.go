package slirp

import (
	"net"
	"net/netip"
	"sync"
)

// shares bounds how many of a thing there are at once, in all and for one sandbox, so that none takes all of them.
type shares struct {
	limit, share int

	mu    sync.Mutex
	taken int
	by    map[netip.Addr]int
}

// take reports whether there may be one more; give takes it back.
func (s *shares) take(by netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken >= s.limit || s.by[by] >= s.share {
		return false
	}
	if s.by == nil {
		s.by = make(map[netip.Addr]int)
	}
	s.taken++
	s.by[by]++
	return true
}

func (s *shares) give(by netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.by[by]--; s.by[by] == 0 {
		delete(s.by, by)
	}
}

// sharedListener accepts connections within shares. Others are closed at once.
type sharedListener struct {
	net.Listener
	shares *shares
}

// Accept waits for a connection that there may be.
func (l *sharedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if l.shares.take(from) {
			return &sharedConn{Conn: c, give: sync.OnceFunc(func() { l.shares.give(from) })}, nil
		}
		c.Close()
	}
}

// sharedConn gives its share back when it is closed.
type sharedConn struct {
	net.Conn
	give func()
}

// Close ends the connection.
func (c *sharedConn) Close() error {
	defer c.give()
	return c.Conn.Close()
}
