//go:build linux && (amd64 || arm64 || riscv64)

package prefault

import "unsafe" // for go:linkname, too

const (
	hugePage      = 14 // MADV_HUGEPAGE
	populateRead  = 22 // MADV_POPULATE_READ
	populateWrite = 23 // MADV_POPULATE_WRITE

	huge  = 2 << 20   // a huge page
	cache = 512 << 10 // what a processor of the Go runtime sets aside for small allocations
	large = 128 << 10 // an allocation that goes past that, and of which the runtime touches nothing
)

// rawSyscall6 is syscall.RawSyscall6, which has no state to initialise.
func rawSyscall6(trap, a1, a2, a3, a4, a5, a6 uintptr) (r1, r2, errno uintptr)

// text is where the program's code and types lie, without the tables that tell functions from addresses.
func text() (start, end uintptr)

// data is where its variables lie, without those that are zero and hold no pointers: the runtime has 32 MB of these.
func data() (start, end uintptr)

// Stack grows the calling goroutine's stack to 32 KB at once. Growing it step by step, when it is deep, has the runtime look up
// every frame in tables that are touched for nothing else.
func Stack()

// startGC is how much garbage there may be, in percent of the rest, debug.SetGCPercent.
const startGC = 400

//go:linkname setGCPercent runtime/debug.setGCPercent
func setGCPercent(percent int32) int32

// region is memory between two addresses.
type region struct{ start, end uintptr }

// advised is what init has made of the heap: the rest of what small allocations come from, and the huge page that is next.
var advised struct{ near, next region }

// allocated keeps the compiler from putting what init allocates on the stack or among the data.
var allocated []byte

func init() {
	Stack() // the main goroutine's
	// What is over in a moment is over before collecting garbage would pay. It takes stopping all threads: later there are some.
	setGCPercent(startGC)
	near := address(make([]byte, 64))
	advised.near = region{near, near&^(cache-1) + cache}
	advise(advised.near, populateWrite)

	// The heap grows by 4 MB, from a random address. Large allocations take the lowest space that is free: one fills what there
	// is before the next boundary, so that what comes after begins a huge page of which nothing was touched.
	free := address(make([]byte, large)) + large
	if boundary := (free + huge - 1) &^ (huge - 1); boundary != free {
		address(make([]byte, boundary-free))
	}
	next := address(make([]byte, large)) &^ (huge - 1)
	advised.next = region{next, next + huge}
	advise(advised.next, hugePage)
	allocated = nil

	start, end := data()
	advise(region{start, end}, populateWrite)
	start, end = text()
	advise(region{start, end}, populateRead)
}

func address(b []byte) uintptr {
	allocated = b
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))
}

// advise has no error to return: what is not mapped now is when it is touched.
func advise(r region, how uintptr) {
	start := r.start &^ (page - 1)
	rawSyscall6(madvise, start, r.end-start, how, 0, 0, 0)
}
