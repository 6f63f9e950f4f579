package mend

import "fmt"

// FileSystem names one by its magic number, statfs(2), and tells whether the upper layer of an overlay can be on it; of
// one that is not known it is taken to be so. The numbers are of linux/magic.h and the file systems' own headers.
func FileSystem(magic int64) (name string, overlay bool) {
	switch uint32(magic) {
	case 0xef53:
		return "ext4", true
	case 0x58465342:
		return "xfs", true
	case 0x9123683e:
		return "btrfs", true
	case 0x01021994:
		return "tmpfs", true
	case 0xf2f52010:
		return "f2fs", true
	case 0xca451a4e:
		return "bcachefs", true
	case 0x2fc12fc1:
		return "zfs", true
	case 0x794c7630:
		return "overlay", false
	case 0x6969:
		return "NFS", false
	case 0xf15f:
		return "eCryptfs", false
	case 0x65735546:
		return "FUSE", false
	case 0xff534d42, 0xfe534d42, 0x517b:
		return "SMB", false
	case 0x00c36400:
		return "Ceph", false
	case 0x01021997:
		return "9p", false
	case 0x5346414f:
		return "AFS", false
	case 0x47504653:
		return "GPFS", false
	case 0x0bd00bd0:
		return "Lustre", false
	case 0x4d44:
		return "FAT", false
	case 0x2011bab0:
		return "exFAT", false
	case 0x5346544e, 0x7366746e:
		return "NTFS", false
	}
	return fmt.Sprintf("file system %#x", uint32(magic)), true
}

// NoOverlay says that images cannot be mounted from a folder, for its file system's sake.
func NoOverlay(dir, fileSystem string) string {
	return fmt.Sprintf("overlayfs cannot be laid over %s on %s", dir, fileSystem)
}

// LocalStore is a folder on the machine's own disk for a user whose home is no place for a store.
func LocalStore(user string) string { return "/var/lib/whisk-" + user }

// MoveStore makes LocalStore and tells whisk of it.
func (d Distro) MoveStore(user string) string {
	local := LocalStore(user)
	return d.Root("install -d -m 700 -o "+Quote(user)+" "+Quote(local)) +
		" && " + UseStore(local)
}

// UseStore has the user's own shell write a store into config.toml: at the top, as further down it could be a table's
// key, in place of the one that may be there. The file may be a link, as of those who keep their settings elsewhere.
func UseStore(dir string) string {
	const file = "~/.config/whisk/config.toml"
	return "mkdir -p ~/.config/whisk && rest=$(sed '/^ *store *=/d' " + file + " 2>/dev/null || :) && printf '%s\\n' " + Quote(fmt.Sprintf("store = %q", dir)) + ` "$rest" > ` + file
}
