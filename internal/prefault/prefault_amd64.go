package prefault

const (
	madvise = 28
	page    = 4 << 10
)
