package keeper

import (
	"context"
	"net"
	"net/http"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// maxDescriptors is how many descriptors one request may carry: the three standard streams.
const maxDescriptors = 3

// conn is a control connection that keeps the descriptors which come with its bytes.
type conn struct {
	*net.UnixConn
	mu    sync.Mutex
	files []*os.File
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4*maxDescriptors))
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if oobn > 0 {
		fds, _ := rights(oob[:oobn])
		c.mu.Lock()
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			c.files = append(c.files, os.NewFile(uintptr(fd), "stream"))
		}
		c.mu.Unlock()
	}
	if n == 0 && err == nil && len(b) > 0 {
		return 0, net.ErrClosed // end of file, recvmsg(2)
	}
	return n, err
}

// take hands over the descriptors that have come.
func (c *conn) take() []*os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	files := c.files
	c.files = nil
	return files
}

// Close implements net.Conn; descriptors nobody took are closed with it.
func (c *conn) Close() error {
	for _, f := range c.take() {
		f.Close()
	}
	return c.UnixConn.Close()
}

type connKey struct{}

func withConn(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, nc)
}

// takeFiles hands over the descriptors of a request.
func takeFiles(r *http.Request) []*os.File {
	if c, ok := r.Context().Value(connKey{}).(*conn); ok {
		return c.take()
	}
	return nil
}

// listener accepts control connections of this user's commands only, and the one that the keeper was born with.
type listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	l      *net.UnixListener
}

func newListener(l *net.UnixListener, born net.Conn, from peers) *listener {
	out := &listener{conns: make(chan net.Conn, 1), closed: make(chan struct{}), l: l}
	if uc, ok := born.(*net.UnixConn); ok {
		out.conns <- &conn{UnixConn: uc}
	}
	go func() {
		for {
			uc, err := l.AcceptUnix()
			if err != nil {
				return
			}
			if !from.same(uc) {
				uc.Close()
				continue
			}
			select {
			case out.conns <- &conn{UnixConn: uc}:
			case <-out.closed:
				uc.Close()
				return
			}
		}
	}()
	return out
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.l.Close()
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.l.Addr() }
