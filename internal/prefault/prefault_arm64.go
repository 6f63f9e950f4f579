package prefault

const (
	madvise = 233
	page    = 64 << 10 // the greatest that kernels have; Go's linker aligns by it
)
