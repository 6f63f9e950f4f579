package terminal

// matcher finds the detach keys in a stream that comes in pieces.
type matcher struct {
	keys []byte
	n    int // how many of keys have been seen and are held back
}

// feed returns what is to be passed on of p, and whether the detach keys were completed. Keys that begin the
// sequence are held back until the next key tells whether they belong to it.
func (m *matcher) feed(p []byte) (pass []byte, detach bool) {
	if len(m.keys) == 0 {
		return p, false
	}
	pass = make([]byte, 0, len(p)+m.n)
	for _, b := range p {
		for m.n > 0 && b != m.keys[m.n] {
			// What was held back no longer matches as a whole; its tail may begin a new match.
			keep := m.n - 1
			for keep > 0 && string(m.keys[m.n-keep:m.n]) != string(m.keys[:keep]) {
				keep--
			}
			pass = append(pass, m.keys[:m.n-keep]...)
			m.n = keep
		}
		if b != m.keys[m.n] {
			pass = append(pass, b)
			continue
		}
		m.n++
		if m.n == len(m.keys) {
			m.n = 0
			return pass, true
		}
	}
	return pass, false
}
