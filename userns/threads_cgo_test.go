//go:build cgo

package userns

// threadsKnown: with cgo, which only the race detector brings in, Enter cannot reach threads that exist already.
const threadsKnown = false
