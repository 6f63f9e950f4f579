package doctor

import (
	"fmt"

	"github.com/whisk-sandbox/whisk/remedy"
)

// fileSystems are the magic numbers of statfs(2) that are worth a name.
func fileSystems() map[uint32]string {
	return map[uint32]string{
		0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x01021994: "tmpfs", 0xf2f52010: "f2fs", 0x2fc12fc1: "zfs",
		0x794c7630: "overlay", 0xca451a4e: "bcachefs",
		0x6969: "nfs", 0xf15f: "ecryptfs", 0x65735546: "fuse", 0xff534d42: "cifs", 0xfe534d42: "smb2", 0x01021997: "9p",
		0x00c36400: "ceph", 0x0bd00bd0: "lustre", 0x5346414f: "afs",
	}
}

// foreign are file systems that keep no owners but the user's, or whose server has its own mind about them.
func foreign() map[uint32]bool {
	return map[uint32]bool{
		0x6969: true, 0xf15f: true, 0x65735546: true, 0xff534d42: true, 0xfe534d42: true, 0x01021997: true, 0x00c36400: true,
		0x0bd00bd0: true, 0x5346414f: true,
	}
}

// elsewhere moves the store to a disk of this machine; what is in it stays where it is.
func elsewhere(v View) remedy.Fix {
	dir := "/var/tmp/whisk-" + who(v.User)
	return remedy.Fix{Line: fmt.Sprintf("mkdir -pm700 %s ~/.config/whisk && echo 'store = \"%[1]s\"' >>~/.config/whisk/config.toml", dir)}
}

func store(v View) []Finding {
	const name = "layers"
	kind := fileSystems()[v.Disk.Type]
	if kind == "" {
		kind = fmt.Sprintf("file system 0x%x", v.Disk.Type)
	}
	at := kind + " at " + v.Disk.Path
	if v.Inside == nil {
		if foreign()[v.Disk.Type] {
			return []Finding{note(name, at, "not tried; "+kind+" does not keep the owners of images' files", elsewhere(v))}
		}
		return nil // what stands before it has been said
	}
	for _, t := range []struct{ what, said string }{
		{"takes no files of whisk's", v.Inside.Write},
		{"does not keep the owners of images' files", v.Inside.Owner},
		{"does not take overlayfs", v.Inside.Overlay},
		{"keeps no user attributes, which layers need", v.Inside.Attr},
	} {
		if t.said != "" {
			return []Finding{problem(name, at+" "+t.what+": "+t.said, elsewhere(v))}
		}
	}
	if foreign()[v.Disk.Type] {
		return []Finding{note(name, at+", and overlayfs works there", "images unpack slowly, and locks are the server's", elsewhere(v))}
	}
	return []Finding{ok(name, "overlayfs works on "+at)}
}

func storeHealth(v View) []Finding {
	const name = "store"
	switch {
	case v.Inside == nil:
		return nil
	case v.Inside.Store != "":
		return []Finding{problem(name, v.Inside.Store, remedy.Fix{Line: "whisk images, which says more; mv " + v.Store + "/storage aside, and pull again"})}
	case v.Inside.Images == 1:
		return []Finding{ok(name, "1 image in "+v.Store)}
	}
	return []Finding{ok(name, fmt.Sprintf("%d images in %s", v.Inside.Images, v.Store))}
}

// Below these sizes in bytes, images do not fit; node and python unpack to about 1 GB.
const (
	fewBytes = 2 << 30
	noBytes  = 16 << 20
)

func disk(v View) []Finding {
	const name = "disk"
	found := fmt.Sprintf("%.1f GB free at %s", float64(v.Disk.Free)/1e9, v.Disk.Path)
	mend := remedy.Fix{Line: "whisk images and whisk rmi IMAGE, or a store elsewhere: " + elsewhere(v).Line}
	switch {
	case v.Disk.Free < noBytes:
		return []Finding{problem(name, found, mend)}
	case v.Disk.Free < fewBytes:
		return []Finding{note(name, found, "large images do not fit", mend)}
	}
	return []Finding{ok(name, found)}
}
