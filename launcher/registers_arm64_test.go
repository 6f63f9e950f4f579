package launcher

// interrupt makes of a call that is set up one that the kernel has interrupted: it is set up anew.
func interrupt(*registers, *idNotice) {}
