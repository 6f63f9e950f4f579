package image

import "sync"

// LayerState is how far one layer has come.
type LayerState string

// The states of a layer; each layer of an image that is pulled ends in Kept or Done.
const (
	Waiting     LayerState = "waiting"      // for a place, or for another process that has it in hand
	Downloading LayerState = "downloading"  // and unpacking: one goes with the other
	Kept        LayerState = "already here" // it was in the store before
	Done        LayerState = "done"
)

// Step is one piece of news about one layer.
type Step struct {
	Layer string // the first 12 digits of its digest
	State LayerState
	Bytes int64 // moved so far, as they are transferred
	Total int64 // size of the blob; 0: not known
}

// Progress is told of the steps of a pull or load, for each layer at most some twenty times a second. It is called
// from several goroutines, one call at a time.
type Progress func(Step)

// oneAtATime makes a Progress safe to call from several goroutines; a nil one is silent.
func oneAtATime(p Progress) Progress {
	if p == nil {
		return func(Step) {}
	}
	var mu sync.Mutex
	return func(s Step) {
		mu.Lock()
		defer mu.Unlock()
		p(s)
	}
}
