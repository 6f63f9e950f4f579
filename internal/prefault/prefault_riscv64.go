package prefault

const (
	madvise = 233
	page    = 4 << 10
)
