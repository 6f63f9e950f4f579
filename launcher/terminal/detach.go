package terminal

import (
	"fmt"
	"strings"
)

// DefaultDetachKeys is what docker-run(1) and podman-run(1) detach on: ctrl-p, then ctrl-q.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// ParseDetachKeys reads the value of --detach-keys: keys separated by commas, each a single character or ctrl-X
// where X is a letter or one of @ [ \ ] ^ _. An empty text means that nothing detaches.
func ParseDetachKeys(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	var keys []byte
	for key := range strings.SplitSeq(text, ",") {
		k, ok := parseKey(key)
		if !ok {
			return nil, fmt.Errorf("detach key %q is neither one character nor ctrl- and a letter or one of @[\\]^_", key)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func parseKey(key string) (byte, bool) {
	if len(key) == 1 {
		return key[0], true
	}
	name, ok := strings.CutPrefix(key, "ctrl-")
	if !ok || len(name) != 1 {
		return 0, false
	}
	c := name[0]
	if c >= 'a' && c <= 'z' {
		c -= 'a' - 'A'
	}
	// ctrl- clears the two upper bits of the characters @ to _, ASCII's columns 4 and 5.
	if c < '@' || c > '_' {
		return 0, false
	}
	return c & 0x1f, true
}

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
