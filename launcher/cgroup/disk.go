package cgroup

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Disk bounds what a group moves to and from one block device. Zero values are no limit.
type Disk struct {
	Path      string `json:"path"`                // of the device
	ReadBPS   int64  `json:"read_bps,omitempty"`  // bytes a second
	WriteBPS  int64  `json:"write_bps,omitempty"` // bytes a second
	ReadIOPS  int64  `json:"read_iops,omitempty"` // operations a second
	WriteIOPS int64  `json:"write_iops,omitempty"`
}

// None says that the disk is not bounded: a limit that was there is lifted.
func (d Disk) None() bool { return d == Disk{Path: d.Path} }

// setting is a line of io.max.
func (d Disk) setting(number string) Setting {
	return Setting{"io.max", fmt.Sprintf("%s rbps=%s wbps=%s riops=%s wiops=%s", number,
		numberOrMax(d.ReadBPS), numberOrMax(d.WriteBPS), numberOrMax(d.ReadIOPS), numberOrMax(d.WriteIOPS)), false}
}

// weights are the share of a disk's time, docker's 10 to 1000. The scheduler bfq has a file of its own with that scale;
// io.weight has 1 to 10000, and is mapped as runc does. A kernel may have either, both or none.
func weights(docker int64) []Setting {
	if docker == 0 {
		return []Setting{{"io.bfq.weight", "100", true}, {"io.weight", "default 100", true}}
	}
	return []Setting{
		{"io.bfq.weight", strconv.FormatInt(docker, 10), true},
		{"io.weight", "default " + strconv.FormatInt(1+(docker-10)*9999/990, 10), true},
	}
}

// Disks are the block devices of a machine.
type Disks struct {
	// Stat gives a device's number and whether it is a block device; FS is sysfs's root, /sys.
	Stat func(path string) (major, minor uint32, block bool, err error)
	FS   fs.FS
}

// HereDisks are those of this machine.
func HereDisks() Disks {
	return Disks{FS: os.DirFS("/sys"), Stat: func(path string) (major, minor uint32, block bool, err error) {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return 0, 0, false, &os.PathError{Op: "stat", Path: path, Err: err}
		}
		return unix.Major(st.Rdev), unix.Minor(st.Rdev), st.Mode&unix.S_IFMT == unix.S_IFBLK, nil
	}}
}

// Number finds the number that io.max knows a device by: a partition's is that of its whole disk, which alone can be
// bounded (the kernel answers ENODEV to others).
func (d Disks) Number(path string) (string, error) {
	major, minor, block, err := d.Stat(path)
	if err != nil {
		return "", fmt.Errorf("looking for the block device: %w", err)
	}
	if !block {
		return "", fmt.Errorf("%q is no block device", path)
	}
	own := fmt.Sprintf("%d:%d", major, minor)
	dir := filepath.Join("dev/block", own)
	if _, err := fs.Stat(d.FS, filepath.Join(dir, "partition")); err != nil {
		return own, nil
	}
	// dev/block/8:1 is a link to …/sda/sda1: above it is the disk.
	target, err := fs.ReadLink(d.FS, dir)
	if err != nil {
		return "", fmt.Errorf("looking for the disk of %s: %w", path, err)
	}
	b, err := fs.ReadFile(d.FS, filepath.Join("dev/block", filepath.Dir(target), "dev"))
	if err != nil {
		return "", fmt.Errorf("looking for the disk of %s: %w", path, err)
	}
	return strings.TrimSpace(string(b)), nil
}
