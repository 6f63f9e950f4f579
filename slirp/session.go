package slirp

import (
	"container/list"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// session is one flow without a connection of its own, a UDP flow or a ping: a connected socket kept for as long as
// either side uses it.
type session struct {
	conn    socket
	used    atomic.Int64 // unix nanoseconds of the last packet either way
	replied atomic.Bool
	log     *openFlow // nil: of no interest
	noQUIC  bool      // none may begin here; as it was made
	alone   bool      // datagrams are sent one by one; the uplink's reader's
}

func newSession(c socket) *session {
	s := &session{conn: c}
	s.touch()
	return s
}

func (s *session) touch() { s.used.Store(time.Now().UnixNano()) }

// expiry is when the session ends if nothing more comes.
func (s *session) expiry(unreplied, replied time.Duration) time.Time {
	idle := unreplied
	if s.replied.Load() {
		idle = replied
	}
	return time.Unix(0, s.used.Load()).Add(idle)
}

// sessions is a table of sessions with limits, in all and for each source. At one of them the session that was idle for
// long gives way, as in a router's translation table: the source's own at its share, or one of the source that has most.
// Which one that is, is found by second chance: sessions queue, and one that was used since it joined goes to the end.
type sessions[K comparable] struct {
	limit, share int
	source       func(K) netip.Addr

	mu     sync.Mutex
	m      map[K]*list.Element       // of *queued[K]
	queues map[netip.Addr]*list.List // by source
	closed bool
}

// queued is a session in its source's queue.
type queued[K comparable] struct {
	key K
	*session
	used int64 // session.used when it joined the queue
}

// chances bounds how many sessions of a queue get a second chance at once.
const chances = 16

func newSessions[K comparable](limit, share int, source func(K) netip.Addr) *sessions[K] {
	return &sessions[K]{limit: limit, share: share, source: source, m: make(map[K]*list.Element), queues: make(map[netip.Addr]*list.List)}
}

func (t *sessions[K]) get(k K) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.m[k]; e != nil {
		return e.Value.(*queued[K]).session
	}
	return nil
}

// put adds a session. On a closed table it closes the session and reports false.
func (t *sessions[K]) put(k K, s *session) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		s.conn.Close()
		return false
	}
	if e := t.m[k]; e != nil {
		t.removeLocked(e)
	}
	src := t.source(k)
	switch q := t.queues[src]; {
	case q != nil && q.Len() >= t.share:
		t.evictLocked(q)
	case len(t.m) >= t.limit:
		for _, other := range t.queues { // as many as sandboxes have addresses
			if q == nil || other.Len() > q.Len() {
				q = other
			}
		}
		t.evictLocked(q)
	}
	if t.queues[src] == nil {
		t.queues[src] = list.New()
	}
	t.m[k] = t.queues[src].PushBack(&queued[K]{k, s, s.used.Load()})
	return true
}

func (t *sessions[K]) evictLocked(q *list.List) {
	for range chances {
		first := q.Front().Value.(*queued[K])
		now := first.session.used.Load()
		if now == first.used {
			break
		}
		first.used = now
		q.MoveToBack(q.Front())
	}
	t.removeLocked(q.Front())
}

// removeLocked closes a session and forgets it.
func (t *sessions[K]) removeLocked(e *list.Element) {
	s := e.Value.(*queued[K])
	delete(t.m, s.key)
	src := t.source(s.key)
	if q := t.queues[src]; q != nil {
		if q.Remove(e); q.Len() == 0 {
			delete(t.queues, src)
		}
	}
	s.conn.Close()
}

// end closes a session and forgets it if it is still the one that k stands for.
func (t *sessions[K]) end(k K, s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.m[k]; e != nil && e.Value.(*queued[K]).session == s {
		t.removeLocked(e)
		return
	}
	s.conn.Close()
}

// close ends every session, and every one to come.
func (t *sessions[K]) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, e := range t.m {
		e.Value.(*queued[K]).conn.Close()
	}
}

// endWhere ends the sessions whose key fits, which are logged as denied if there is a reason.
func (t *sessions[K]) endWhere(fits func(K) bool, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, e := range t.m {
		if !fits(k) {
			continue
		}
		if why != "" {
			e.Value.(*queued[K]).log.deny(why)
		}
		t.removeLocked(e)
	}
}
