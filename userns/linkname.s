// The compiler accepts bodiless functions (go:linkname, fork_child.go) only in a package with an assembly file.
