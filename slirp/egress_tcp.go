package slirp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inspect joins the two halves of a connection, at once or, if only a name allows it, when the app's first bytes agree with
// that. It owns both.
func (t *tcpFlows) inspect(f *tcpFlow, p packet, app halfCloser, host *net.TCPConn, log *openFlow) {
	e := t.gate.names.endpoint(p.src.Addr())
	if !f.verdict.byName || e == nil {
		log.count(t.relay(f.ctx, app, host))
		return
	}
	look := &inspection{app: app, host: host, allowed: func(name string) bool {
		return allowsName(e.egress.Rules, name, "tcp", p.dst.Port())
	}}
	why := look.run(f.ctx)
	log.count(look.sent, look.received)
	switch {
	case why != "":
		t.gate.log.Debug("egress denied", "app", e.name, "protocol", "tcp", "from", p.src, "to", p.dst, "name", f.verdict.name, "why", why)
		log.deny(why)
		fallthrough
	case look.err != nil:
		reset(app)
		reset(host)
	case look.ended:
		log.count(relay(f.ctx, told{app}, host))
	case len(look.rest) > 0:
		log.count(relay(f.ctx, app, &answered{host, look.rest}))
	default:
		log.count(t.relay(f.ctx, app, host))
	}
}

// inspection holds what an app says until it is clear which server that is for:
//
//	app ─▶ held ─┬─ allowed ─▶ host ─▶ relay
//	             └─ denied ──▶ reset both
//	app ◀───────────────────── host, at once: some servers speak first
type inspection struct {
	app     halfCloser
	host    hostHalf
	allowed func(name string) bool

	// Set when run returns:
	rest  []byte // what the host has said and the app has not taken yet
	ended bool   // the host has said all, and the app knows; rest is empty
	err   error  // of either connection

	sent, received int64 // bytes passed on

	broken  func() // resets both
	reply   helloReply
	replied chan struct{} // closed when reply is known, or will not be
}

// hostHalf is a kernel's connection, whose state can be asked for.
type hostHalf interface {
	halfCloser
	syscall.Conn
}

// run returns why the connection may not be, or "" after everything held has been sent to the host.
func (i *inspection) run(ctx context.Context) (why string) {
	broken := sync.OnceFunc(func() {
		reset(i.app)
		reset(i.host)
	})
	i.broken, i.replied = broken, make(chan struct{})
	stop := context.AfterFunc(ctx, broken)
	var answers sync.WaitGroup
	var failed error
	answers.Go(func() {
		defer i.reply.end(i.replied)
		if failed = i.answer(); failed != nil {
			broken() // wakes up the other direction
		}
	})
	why, held, err := i.hold()
	// What the host says from now on is for the relay.
	past := time.Unix(1, 0)
	_ = i.host.SetReadDeadline(past) // these fail only on connections that are closed
	_ = i.app.SetWriteDeadline(past)
	answers.Wait()
	_ = i.host.SetReadDeadline(time.Time{})
	_ = i.app.SetWriteDeadline(time.Time{})
	if err == nil && failed == nil && why == "" {
		_, err = i.host.Write(held)
		i.sent += int64(len(held))
	}
	if i.err = errors.Join(err, failed); !stop() {
		i.err = errors.Join(i.err, ctx.Err())
	}
	return why
}

// hold reads the app's first bytes until they are settled. It sends on what no server could act on yet, and returns what
// is left, or why the host must not get it.
func (i *inspection) hold() (why string, held []byte, err error) {
	sent := 0
	for {
		held = slices.Grow(held, 4<<10)
		n, rerr := i.app.Read(held[len(held):cap(held)])
		held = held[:len(held)+n]
		ended := errors.Is(rerr, io.EOF)
		if rerr != nil && !ended {
			return "", nil, rerr
		}
		switch s := sniff(held); s.stage {
		case stageBad:
			return s.why, nil, nil
		case stageOther:
			return "", held[sent:], nil
		case stageNamed:
			switch why := i.denied(s.names); {
			case why != "":
				return why, nil, nil
			case s.hello == 0:
				return "", held[sent:], nil
			}
			if _, err := i.host.Write(held[sent:s.hello]); err != nil {
				return "", nil, err
			}
			i.sent += int64(s.hello - sent)
			return i.holdRetry(held[s.hello:])
		case stageHeld:
			if ended {
				return "it ends before it says which host it is for", nil, nil
			}
		case stageOpen:
			if ended {
				return "", held[sent:], nil
			}
			if _, err := i.host.Write(held[sent:]); err != nil {
				return "", nil, err
			}
			i.sent += int64(len(held) - sent)
			sent = len(held)
		}
	}
}

// denied is why a server may not be spoken to that goes by these names; "" if it may.
func (i *inspection) denied(names []string) string {
	for _, name := range names {
		if !i.allowed(name) {
			return fmt.Sprintf("it is for %s, which no rule allows", name)
		}
	}
	return ""
}

// holdRetry waits for the server's answer to a TLS hello. If it asks for another (RFC 8446 §4.1.4), that must be for a name that
// is allowed, too: OpenSSL, for one, goes by the second.
func (i *inspection) holdRetry(held []byte) (why string, _ []byte, err error) {
	over := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		if failed(i.app, over) {
			i.broken() // nobody reads from it meanwhile
		}
	})
	<-i.replied
	close(over)
	watch.Wait()
	if !i.reply.retry {
		return "", held, nil
	}
	for {
		switch s := sniffRetry(held); s.stage {
		case stageBad:
			return s.why, nil, nil
		case stageNamed:
			return i.denied(s.names), held, nil
		}
		held = slices.Grow(held, 4<<10)
		n, err := i.app.Read(held[len(held):cap(held)])
		held = held[:len(held)+n]
		switch {
		case n == 0 && errors.Is(err, io.EOF):
			return "it ends before it says again which host it is for", nil, nil
		case err != nil && !errors.Is(err, io.EOF):
			return "", nil, err
		}
	}
}

// answer carries what the host says to the app, until the host's read deadline ends it.
func (i *inspection) answer() error {
	b := make([]byte, 16<<10)
	for {
		n, err := i.host.Read(b)
		if n > 0 {
			i.reply.read(b[:n], i.replied)
			m, werr := i.app.Write(b[:n])
			i.received += int64(m)
			// The user-mode stack's deadline is not os.ErrDeadlineExceeded.
			if late, ok := errors.AsType[net.Error](werr); ok && late.Timeout() {
				i.rest = b[m:n]
				return nil
			}
			if werr != nil {
				return werr
			}
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case errors.Is(err, io.EOF):
			i.ended = true
			if err := i.app.CloseWrite(); err != nil {
				return err
			}
			return i.awaitReset()
		case err != nil:
			return err
		}
	}
}

// awaitReset waits until the host resets a connection on which it has said all, or until its read deadline.
func (i *inspection) awaitReset() error {
	raw, err := i.host.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(fds, 0)
		return err == nil && n > 0 && fds[0].Revents&unix.POLLERR != 0
	})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case err != nil:
		return err
	}
	return unix.ECONNRESET
}

// answered is the host's half of a connection of which a part has been read.
type answered struct {
	*net.TCPConn
	rest []byte
}

// Read returns the rest first.
func (a *answered) Read(b []byte) (int, error) {
	if len(a.rest) > 0 {
		n := copy(b, a.rest)
		a.rest = a.rest[n:]
		return n, nil
	}
	return a.TCPConn.Read(b)
}

func (a *answered) reset() { reset(a.TCPConn) }

// told is an app's half of a connection whose end it has been told of: a second time could fail.
type told struct{ halfCloser }

// CloseWrite does nothing.
func (t told) CloseWrite() error { return nil }

func (t told) reset() { reset(t.halfCloser) }
