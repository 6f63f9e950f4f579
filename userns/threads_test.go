//go:build !cgo

package userns

// threadsKnown: Go knows all threads, as in the whisk that people run, and Enter changes all.
const threadsKnown = true
