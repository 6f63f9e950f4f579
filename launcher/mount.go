package launcher

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Mounts are made detached and put in place by descriptor (open_tree, fsopen, move_mount: kernel 5.2;
// mount_setattr: 5.12), so that no name is looked up twice.

// cloneTree copies the mount at a path with all below it, with attributes added.
func cloneTree(dirfd int, name string, attrs uint64) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE)
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	fd, err := unix.OpenTree(dirfd, name, flags)
	if err != nil {
		return -1, fmt.Errorf("copy mount %q: %w", name, err)
	}
	if attrs == 0 {
		return fd, nil
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attrs}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set attributes of mount %q: %w", name, err)
	}
	return fd, nil
}

// newMount makes a detached mount of a file system type.
func newMount(fstype string, attrs int, options ...string) (int, error) {
	fsfd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open file system %s: %w", fstype, err)
	}
	defer unix.Close(fsfd)
	for i := 0; i+1 < len(options); i += 2 {
		if options[i+1] == "" {
			err = unix.FsconfigSetFlag(fsfd, options[i])
		} else {
			err = unix.FsconfigSetString(fsfd, options[i], options[i+1])
		}
		if err != nil {
			return -1, fmt.Errorf("set %s=%s of %s: %w%s", options[i], options[i+1], fstype, err, fsMessages(fsfd))
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return -1, fmt.Errorf("make %s: %w%s", fstype, err, fsMessages(fsfd))
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", fstype, err)
	}
	return fd, nil
}

// fsMessages reads what the kernel says about a failed mount; its log is read from the same descriptor.
func fsMessages(fsfd int) string {
	var b [256]byte
	n, err := unix.Read(fsfd, b[:])
	if err != nil || n <= 2 {
		return ""
	}
	msg := b[2:n] // "e " or "w " before the text
	for len(msg) > 0 && msg[len(msg)-1] == '\n' {
		msg = msg[:len(msg)-1]
	}
	return " (" + string(msg) + ")"
}

// put moves a detached mount onto a handle and closes both.
func put(mount, target int) error {
	defer unix.Close(mount)
	defer unix.Close(target)
	return move(mount, target)
}

func move(mount, target int) error {
	return unix.MoveMount(mount, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// newTmpfs makes a detached tmpfs(5). A size of 0 leaves the kernel's default, half of memory; the size bounds what is in files
// and not what files take themselves, so their number is bounded with it.
func newTmpfs(attrs int, size int64, mode uint32) (int, error) {
	options := []string{"mode", strconv.FormatUint(uint64(mode), 8)}
	if size > 0 {
		options = append(options, "size", strconv.FormatInt(size, 10), "nr_inodes", tmpfsFiles(size))
	}
	return newMount("tmpfs", attrs, options...)
}
