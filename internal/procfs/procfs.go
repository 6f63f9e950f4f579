// Package procfs writes to files of proc(5), and to nothing that lies in their place: who can mount something over one has
// whisk's rights write where he likes (CVE-2025-52881).
package procfs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// RootInode is that of the top folder, PROC_ROOT_INO in the kernel's proc_fs.h.
const RootInode = 1

// Write writes a file of /proc in one go, as the kernel demands of most of them. It makes none and empties none.
func Write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if err = Check(int(f.Fd())); err != nil {
		err = &os.PathError{Op: "write", Path: path, Err: err}
	} else {
		_, err = f.WriteString(text)
	}
	return errors.Join(err, f.Close())
}

// Check says whether a descriptor is of a file system of the kernel's kind proc.
func Check(fd int) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return fmt.Errorf("look at file system: %w", err)
	}
	if st.Type != unix.PROC_SUPER_MAGIC {
		return fmt.Errorf("it is of a file system %#x, not of the kernel's /proc", st.Type)
	}
	return nil
}
