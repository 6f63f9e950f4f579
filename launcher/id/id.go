// Package id makes the ids of sandboxes. Package early does so before others are initialised, and so it imports nothing that is
// initialised late; see package birth.
package id

import "math/rand/v2"

// New returns 12 random hex digits, not all of them 0 to 9: an id is a host name, too, and resolvers take one that is a number
// for an address (inet_aton(3)). It is safe for use by several goroutines.
func New() string {
	const hex = "0123456789abcdef"
	var b [12]byte
	for number := true; number; {
		for i := range b {
			b[i] = hex[rand.IntN(len(hex))]
			number = number && b[i] <= '9'
		}
	}
	return string(b[:])
}
