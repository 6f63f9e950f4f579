package slirp

import (
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

// sessions is a table of sessions with a limit. When it is full, the session that was idle for longest gives way, as in
// a router's translation table.
type sessions[K comparable] struct {
	limit int

	mu     sync.Mutex
	m      map[K]*session
	closed bool
}

func newSessions[K comparable](limit int) *sessions[K] {
	return &sessions[K]{limit: limit, m: make(map[K]*session)}
}

func (t *sessions[K]) get(k K) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.m[k]
}

// put adds a session. On a closed table it closes the session and reports false.
func (t *sessions[K]) put(k K, s *session) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		s.conn.Close()
		return false
	}
	if len(t.m) >= t.limit {
		var oldest *session
		var key K
		for k, s := range t.m {
			if oldest == nil || s.used.Load() < oldest.used.Load() {
				oldest, key = s, k
			}
		}
		delete(t.m, key)
		oldest.conn.Close()
	}
	t.m[k] = s
	return true
}

// end closes a session and forgets it if it is still the one that k stands for.
func (t *sessions[K]) end(k K, s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m[k] == s {
		delete(t.m, k)
	}
	s.conn.Close()
}

// close ends every session, and every one to come.
func (t *sessions[K]) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, s := range t.m {
		s.conn.Close()
	}
}

// endWhere ends the sessions whose key fits.
func (t *sessions[K]) endWhere(fits func(K) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, s := range t.m {
		if fits(k) {
			delete(t.m, k)
			s.conn.Close()
		}
	}
}
