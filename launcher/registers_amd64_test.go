package launcher

// interrupt makes of a call that is set up one that the kernel has interrupted.
func interrupt(r *registers, n *idNotice) {
	r.Rip += uint64(len(syscallWord))
	r.Orig_rax = uint64(n.number)
	r.Rax = ^uint64(-restartCall - 1)
}
