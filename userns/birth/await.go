package birth

import (
	"errors"
	"os"
	"strconv"
	"syscall"
)

// syncVariable tells Await on which descriptor the parent says that the maps are written. It is this package's own
// affair: Begin sets it and Await unsets it.
const syncVariable = "WHISK_USERNS_SYNC"

// Await is the first thing a stage does: it waits until the parent has written its maps and called Admit, and returns
// whether only one id is mapped. A parent that has ended, and a process that is no stage, are errors.
func Await() (single bool, err error) {
	fd, err := strconv.Atoi(os.Getenv(syncVariable))
	if err != nil {
		return false, errors.New("this process was not started as a stage of whisk")
	}
	if err := os.Unsetenv(syncVariable); err != nil {
		return false, err
	}
	defer syscall.Close(fd)
	var word [1]byte
	for {
		n, err := syscall.Read(fd, word[:])
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return false, os.NewSyscallError("read", err)
		case n == 0:
			return false, errors.New("whisk ended before it wrote the id maps")
		}
		return word[0] == mappedSingle, nil
	}
}
