package slirp

import "golang.org/x/sys/unix"

const (
	// pairEvents are asked for once; edges say when a state has changed, so no system call is needed to change the wish.
	pairEvents = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff

	// pairRounds bounds what one pair may move before others get their turn.
	pairRounds = 16

	// bulkLeast is what a transfer must bring at once to go on through a pipe: below it, copying is cheaper.
	bulkLeast = 16 << 10
)

// pair is two connected sockets that a loop joins.
//
//	begin ─▶ joined ──┬─ both ways ended ─▶ closed
//	                  └─ error, abort ────▶ reset
type pair struct {
	loop  *loop
	owner *tcpForward // whose it is; nil: a relay's
	fd    [2]int
	way   [2]way        // way[i] leads from fd[i] to the other
	over  chan struct{} // closed when it is; nil: nobody waits

	readable, writable [2]bool
	// uneven: the peer has closed, reset, or sent an urgent byte, so a short read does not mean that there is nothing more
	// to read.
	uneven [2]bool
	urgent [2]bool // the peer uses urgent bytes, which splice(2) does not get past
	failed [2]bool // the socket has an error
	queued bool
	ended  bool
}

// way is one direction.
type way struct {
	held   []byte // copied from the source, not taken by the destination yet
	pipe   pipe
	piped  int  // bytes in pipe
	bulk   bool // through the pipe
	eof    bool // the source has said all
	closed bool // and the destination knows
	moved  int64
}

// begin takes the pair on.
func (p *pair) begin() {
	l := p.loop
	l.pairs[p] = struct{}{}
	for i, fd := range p.fd {
		p.readable[i], p.writable[i] = true, true
		if l.leaving || l.watch(fd, pairEvents, p, i) != nil {
			p.abort()
			return
		}
	}
	p.pump()
}

// adopt is begin where one side is watched by the loop already, in somebody else's name, and has had these events: they
// do not come again.
func (p *pair) adopt(side int, events uint32) {
	l := p.loop
	l.pairs[p] = struct{}{}
	p.readable, p.writable = [2]bool{true, true}, [2]bool{true, true}
	l.sources[p.fd[side]].of, l.sources[p.fd[side]].side = p, side
	if l.watch(p.fd[1-side], pairEvents, p, 1-side) != nil {
		p.abort()
		return
	}
	p.take(side, events)
}

// take notes what has changed on one socket.
func (p *pair) take(side int, events uint32) {
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		p.readable[side] = true
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		p.writable[side] = true
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR|unix.EPOLLPRI) != 0 {
		p.uneven[side] = true
	}
	if events&unix.EPOLLPRI != 0 {
		p.urgent[side], p.readable[side] = true, true
	}
	if events&unix.EPOLLERR != 0 {
		p.failed[side] = true
	}
	if events&unix.EPOLLERR != 0 && p.way[side].eof {
		// Nobody reads there any more, who would see the error.
		if code, err := unix.GetsockoptInt(p.fd[side], unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			p.abort()
			return
		}
	}
	p.pump()
}

// pump moves what can be moved.
func (p *pair) pump() {
	if p.ended {
		return
	}
	more := false
	for i := range p.way {
		ok, again := p.carry(i)
		if !ok {
			p.abort()
			return
		}
		more = more || again
	}
	if p.way[0].closed && p.way[1].closed {
		p.finish(unixClose)
		return
	}
	if more && !p.queued {
		p.queued = true
		p.loop.ready = append(p.loop.ready, p)
	}
}

// carry moves bytes in one direction; again says that more could be moved at once, and ok is false on an error.
func (p *pair) carry(i int) (ok, again bool) {
	w := &p.way[i]
	for range pairRounds {
		if len(w.held) > 0 || w.piped > 0 {
			if !p.writable[1-i] {
				// A reset overtakes what its destination does not take, as it would in the destination's own kernel.
				return !p.failed[i], false
			}
			if !p.deliver(i) {
				return false, false
			}
			continue
		}
		if w.eof {
			if !w.closed {
				if unix.Shutdown(p.fd[1-i], unix.SHUT_WR) != nil {
					return false, false
				}
				w.closed = true
				p.release(w)
			}
			return true, false
		}
		if !p.readable[i] {
			p.release(w)
			return true, false
		}
		if !p.fetch(i) {
			return false, false
		}
	}
	return true, true
}

// fetch takes bytes from the source, small ones at once to the destination.
func (p *pair) fetch(i int) bool {
	w, l := &p.way[i], p.loop
	if p.urgent[i] {
		w.bulk = false
	}
	if w.bulk && w.pipe == (pipe{}) {
		w.pipe, w.bulk = l.getPipe()
	}
	if w.bulk {
		n, errno := move(p.fd[i], w.pipe.w, pipeSize)
		switch {
		case errno == unix.EAGAIN:
			p.readable[i] = false
		case errno == unix.EINTR:
		case errno != 0:
			return false
		case n == 0:
			w.bulk = false // the end, or an urgent byte: recv(2) knows
		default:
			w.piped = n
			w.moved += int64(n)
			w.bulk = n >= bulkLeast
		}
		return true
	}
	n, errno := receive(p.fd[i], l.buf)
	switch {
	case errno == unix.EAGAIN:
		p.readable[i] = false
		return true
	case errno == unix.EINTR:
		return true
	case errno != 0:
		return false
	case n == 0:
		w.eof = true
		return true
	}
	w.moved += int64(n)
	w.bulk = n == len(l.buf)
	if !w.bulk && !p.uneven[i] {
		p.readable[i] = false // drained, epoll(7): the next byte is a new edge
	}
	b := l.buf[:n]
	if p.writable[1-i] {
		sent, errno := transmit(p.fd[1-i], b)
		switch {
		case errno == unix.EAGAIN:
			p.writable[1-i] = false
		case errno == unix.EINTR:
		case errno != 0:
			return false
		default:
			b = b[sent:]
		}
	}
	if len(b) > 0 {
		w.held = append(w.held[:0], b...)
	}
	return true
}

// deliver gives waiting bytes to the destination.
func (p *pair) deliver(i int) bool {
	w := &p.way[i]
	var n int
	var errno unix.Errno
	if len(w.held) > 0 {
		if n, errno = transmit(p.fd[1-i], w.held); errno == 0 {
			if w.held = w.held[n:]; len(w.held) == 0 {
				w.held = nil
			}
		}
	} else if n, errno = move(w.pipe.r, p.fd[1-i], w.piped); errno == 0 {
		w.piped -= n
	}
	switch errno {
	case 0, unix.EINTR:
		return true
	case unix.EAGAIN:
		p.writable[1-i] = false
		return true
	}
	return false
}

// release gives an idle direction's pipe back.
func (p *pair) release(w *way) {
	if w.pipe != (pipe{}) && w.piped == 0 {
		p.loop.putPipe(w.pipe)
		w.pipe = pipe{}
	}
}

// abort ends both connections with a reset.
func (p *pair) abort() { p.finish(resetFD) }

func unixClose(fd int) { unix.Close(fd) }

func (p *pair) finish(end func(fd int)) {
	if p.ended {
		return
	}
	p.ended = true
	for i, fd := range p.fd {
		p.loop.forget(fd)
		end(fd)
		if w := &p.way[i]; w.pipe != (pipe{}) {
			if w.piped == 0 {
				p.loop.putPipe(w.pipe)
			} else {
				w.pipe.close() // what is in it is lost
			}
			w.pipe = pipe{}
		}
	}
	delete(p.loop.pairs, p)
	if p.over != nil {
		close(p.over)
	}
}
