//go:build !amd64 && !arm64 && !riscv64

package launcher

import "errors"

// canMove says that whisk can make calls in another process's name on this architecture. Where it cannot, a process that
// gives up root stays root in its own eyes.
const canMove = false

func (c *idCalls) moveHere(*idNotice, asker, newUser) (bool, error) {
	return false, errors.ErrUnsupported
}

func (c *idCalls) moveAtExec(*idNotice, asker, newUser) (bool, error) {
	return false, errors.ErrUnsupported
}
