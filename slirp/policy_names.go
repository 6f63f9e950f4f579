package slirp

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// A name stands for an address for as long as the answer said, and for a minute at least: programs ask once and connect
	// a little later, or several times. A day at most, since addresses are given to others.
	knownLeast = time.Minute
	knownMost  = 24 * time.Hour

	// maxKnown bounds what is remembered for one sandbox. An app asks for as many names as it likes, and whoever answers
	// puts as many addresses as he likes into an answer; a browser with a hundred tabs has a few thousand. When it is full,
	// what would end first gives way.
	maxKnown = 4096
)

// knownNames are the names that a sandbox's own questions have been answered with, by address. The zero value is empty.
type knownNames struct {
	mu   sync.Mutex
	ends map[knownName]time.Time
	of   map[netip.Addr][]string // the names of an address, the one answered last first
}

type knownName struct {
	addr netip.Addr
	name string
}

// learn notes that name was answered with these addresses.
func (k *knownNames) learn(now time.Time, name string, ttl time.Duration, addrs ...netip.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ends == nil {
		k.ends, k.of = make(map[knownName]time.Time), make(map[netip.Addr][]string)
	}
	end := now.Add(min(max(ttl, knownLeast), knownMost))
	for _, a := range addrs {
		key := knownName{a.Unmap(), name}
		if _, again := k.ends[key]; again {
			k.of[key.addr] = slices.DeleteFunc(k.of[key.addr], func(s string) bool { return s == name })
		} else if len(k.ends) >= maxKnown {
			k.makeRoom(now)
		}
		if end.After(k.ends[key]) {
			k.ends[key] = end
		}
		k.of[key.addr] = append([]string{name}, k.of[key.addr]...)
	}
}

// makeRoom forgets what has ended, or what would end first: a sixteenth of it, so that the search is not for every entry.
func (k *knownNames) makeRoom(now time.Time) {
	keys := slices.SortedFunc(maps.Keys(k.ends), func(a, b knownName) int { return k.ends[a].Compare(k.ends[b]) })
	for i, key := range keys {
		if i >= maxKnown/16 && k.ends[key].After(now) {
			break
		}
		k.forget(key)
	}
}

func (k *knownNames) forget(key knownName) {
	delete(k.ends, key)
	if k.of[key.addr] = slices.DeleteFunc(k.of[key.addr], func(s string) bool { return s == key.name }); len(k.of[key.addr]) == 0 {
		delete(k.of, key.addr)
	}
}

// names lists what an address is known as, the name answered last first.
func (k *knownNames) names(now time.Time, a netip.Addr) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	a = a.Unmap()
	var out []string
	for _, name := range slices.Clone(k.of[a]) {
		if key := (knownName{a, name}); k.ends[key].After(now) {
			out = append(out, name)
		} else {
			k.forget(key)
		}
	}
	return out
}

// use keeps a name that a flow was just allowed by for a minute more: a program that holds on to an address, as servers
// with a list of backends do, is not cut off while it works.
func (k *knownNames) use(now time.Time, a netip.Addr, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := knownName{a.Unmap(), name}
	if end, ok := k.ends[key]; ok && end.Before(now.Add(knownLeast)) {
		k.ends[key] = now.Add(knownLeast)
	}
}
