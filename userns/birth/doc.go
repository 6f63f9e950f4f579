// Package birth starts a hidden stage of whisk's own program in a user namespace that is not mapped yet, and is what that stage
// waits in for its maps. Package userns decides on the maps and has them written.
//
// So that a command can have its keeper come up while its own packages are initialised, it is initialised before most of them:
// packages are in the order of their paths as soon as all that they import is (Go 1.21), so it imports no more than package os
// does. That has neither fmt nor golang.org/x/sys/unix.
package birth
