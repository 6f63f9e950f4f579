package doctor

import (
	"fmt"
	"strings"

	"github.com/whisk-sandbox/whisk/image"
	"github.com/whisk-sandbox/whisk/mend"
)

// overlay tells whether images can be mounted from where the store is.
func overlay(m *Machine, d mend.Distro) []Finding {
	kind, fit := mend.FileSystem(m.Store.Magic)
	f := Finding{Check: "overlay", Level: OK, Lost: "no image can be mounted"}
	local := mend.LocalStore(m.name())
	moveAway := d.MoveStore(m.name())
	switch {
	case m.Store.Forbidden, m.Store.ReadOnly:
		f.Level, f.Cause, f.Lost, f.Mend = Problem, "not-writable", noSandbox, moveAway
		f.Found = fmt.Sprintf("%s is not yours to write to", m.Store.At)
		if m.Store.ReadOnly {
			f.Found = fmt.Sprintf("%s is read-only", m.Store.At)
		}
	case m.NoData != nil:
		f.Check, f.Level, f.Cause, f.Found, f.Mend = "store", Problem, "not-usable", m.NoData.Message, m.NoData.Remedy
		f.Lost = noSandbox
		if f.Mend == "" {
			f.Mend = moveAway
		}
	case m.Inside == nil && fit:
		f.Level, f.Found, f.Lost = Note, fmt.Sprintf("not tried on %s (%s) before the problem is mended", m.Store.At, kind), ""
	case m.Inside == nil:
		f.Level, f.Cause, f.Mend = Problem, "file-system", moveAway
		f.Found = fmt.Sprintf("the store is on %s (%s), where overlayfs cannot write", kind, m.Store.At)
	case m.Inside.Overlay != "":
		f.Level, f.Cause, f.Mend = Problem, "file-system", moveAway
		f.Found = mend.NoOverlay(m.Data, kind) + ": " + m.Inside.Overlay
		if !m.kernelAtLeast(5, 13) {
			f.Cause, f.Mend = "kernel", ""
			f.Found = fmt.Sprintf("kernel %s has no overlay for user namespaces, which needs 5.13", m.Kernel)
		}
	default:
		f.Found, f.Lost = fmt.Sprintf("mounted and written to on %s", kind), ""
		if !fit {
			f.Level, f.Found = Note, fmt.Sprintf("mounted, but on %s, which may be slow or lose locks", kind)
			f.Lost, f.Mend = "stores on it are not tested", moveAway
		}
	}
	if f.Mend == moveAway {
		f.repair.add(
			"install -d -m 700 -o "+mend.Quote(m.name())+" "+mend.Quote(local),
			// The user's own shell, as root may not be able to write to a home on a server.
			"su -s /bin/sh "+mend.Quote(m.name())+" -c "+mend.Quote(mend.UseStore(local)))
	}
	return []Finding{f}
}

// store tells of what is kept.
func store(m *Machine, _ mend.Distro) []Finding {
	f := Finding{Check: "store", Level: OK}
	switch {
	case m.NoData != nil:
		return nil // overlay has told why
	case m.Inside == nil:
		f.Level, f.Found = Note, fmt.Sprintf("%s was not opened before the problem is mended", m.Data)
	case m.Inside.Store != nil:
		f.Level, f.Cause, f.Found, f.Lost, f.Mend = Problem, "damaged", m.Inside.Store.Message, "no sandbox of an image starts", m.Inside.Store.Remedy
	case len(m.Inside.Damaged) > 0:
		return damaged(m.Inside.Damaged)
	case m.Leftovers:
		f.Level, f.Cause, f.Found, f.Mend = Note, "leftovers", "a command or keeper that was killed has left something", "whisk ps"
	default:
		f.Found = fmt.Sprintf("%s, %d images", m.Data, m.Inside.Images)
		if m.Inside.Images == 1 {
			f.Found = fmt.Sprintf("%s, 1 image", m.Data)
		}
	}
	return []Finding{f}
}

// damaged tells of each image that is not whole. All go before one comes back: they may share the layer that is not.
func damaged(images []image.Damage) []Finding {
	var ids, names []string
	for _, d := range images {
		ids = append(ids, fmt.Sprintf("%.12s", d.ID))
		for _, n := range d.Names {
			names = append(names, mend.Quote(n))
		}
	}
	again := "whisk rmi --force " + strings.Join(ids, " ")
	if len(names) > 0 {
		again += " && whisk pull " + strings.Join(names, " ") + " # or load again what came from a file"
	}
	var out []Finding
	for _, d := range images {
		name := strings.Join(d.Names, ", ")
		if name == "" {
			name = fmt.Sprintf("%.12s", d.ID)
		}
		out = append(out, Finding{Check: "store", Level: Note, Cause: "image-damaged", Found: "the image " + name + " is damaged: " + d.What,
			Lost: "no sandbox of it starts, or it cannot be saved", Mend: again})
	}
	return out
}

const (
	// leastFree is what a service's image takes twice, once while it is unpacked.
	leastFree = 2 << 30
	// leastRecord is what a start writes; below it nothing goes.
	leastRecord = 8 << 20
	// leastInodes: a distribution's image has some ten thousand files.
	leastInodes = 20000
)

// space tells what the store's disk has left.
func space(m *Machine, _ mend.Distro) []Finding {
	f := Finding{Check: "disk", Level: OK, Found: fmt.Sprintf("%s free at %s", gib(m.Store.Free), m.Store.At)}
	const free = "whisk images, whisk rmi; or move the store: store = \"/big/disk/whisk\" in ~/.config/whisk/config.toml"
	switch {
	case m.Store.ReadOnly: // said already
	case m.Store.Free < leastRecord:
		f.Level, f.Cause, f.Lost, f.Mend = Problem, "full", noSandbox, free
	case m.Store.Free < leastFree:
		f.Level, f.Cause, f.Lost, f.Mend = Note, "little", "larger images do not fit", free
	case !m.Store.NoInodes && m.Store.Inodes < leastInodes:
		f.Level, f.Cause, f.Lost, f.Mend = Note, "inodes", "larger images do not fit", free
		f.Found = fmt.Sprintf("%d more files fit at %s", m.Store.Inodes, m.Store.At)
	}
	return []Finding{f}
}

func gib(n uint64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
