package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tarball writes a layer; content belongs to regular files.
func tarball(t testing.TB, entries ...tarEntry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1e9, 0)
		}
		h.Size = int64(len(e.content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type tarEntry struct {
	tar.Header
	content string
}

func dirEntry(name string) tarEntry {
	return tarEntry{Header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}}
}

func fileEntry(name, content string) tarEntry {
	return tarEntry{Header: tar.Header{Name: name}, content: content}
}

func linkEntry(kind byte, name, target string) tarEntry {
	return tarEntry{Header: tar.Header{Name: name, Typeflag: kind, Linkname: target}}
}

func unpackTo(t testing.TB, layer []byte, ignoreChown bool) (string, unpacked, error) {
	t.Helper()
	dir := t.TempDir()
	got, err := unpackLayer(t.Context(), bytes.NewReader(layer), dir, ignoreChown, defaultLimits(), io.Discard)
	return dir, got, err
}

func stat(t testing.TB, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return st
}

func TestUnpackKeepsWhatALayerSays(t *testing.T) {
	long := strings.Repeat("long-name/", 30) + strings.Repeat("x", 200)
	zeros := strings.Repeat("\x00", 1<<20)
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_bind_service=ep
	dir, got, err := unpackTo(t, tarball(t,
		tarEntry{Header: tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o751}},
		tarEntry{Header: tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o2755, Gid: 8}},
		tarEntry{Header: tar.Header{Name: "bin/su", Mode: 0o4755, Uid: 5, Gid: 6}, content: "su"},
		linkEntry(tar.TypeLink, "bin/su2", "bin/su"),
		linkEntry(tar.TypeSymlink, "sbin", "bin"),
		fileEntry("sbin/through", "in bin"),
		tarEntry{Header: tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o620}},
		tarEntry{Header: tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}},
		tarEntry{Header: tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Devmajor: 8, Mode: 0o660}},
		tarEntry{Header: tar.Header{Name: "ping", Mode: 0o755, PAXRecords: map[string]string{
			"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.note": "hello", "SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/etc",
		}}, content: "ping"},
		fileEntry(long, "deep"),
		fileEntry("holes", "head"+zeros+"tail"+zeros),
		fileEntry("/absolute", "below the root"),
		fileEntry("twice", "first"), fileEntry("twice", "second"),
	), false)
	if err != nil {
		t.Fatal(err)
	}
	if !got.RootSeen || got.Devices != 2 {
		t.Errorf("unpackLayer = %+v; want the root seen and two devices left out", got)
	}
	for path, want := range map[string]struct {
		mode     uint32
		uid, gid uint32
		nlink    uint64
	}{
		".": {unix.S_IFDIR | 0o751, 0, 0, 0}, "bin": {unix.S_IFDIR | 0o2755, 0, 8, 0}, "bin/su": {unix.S_IFREG | 0o4755, 5, 6, 2}, "bin/su2": {unix.S_IFREG | 0o4755, 5, 6, 2},
		"sbin": {unix.S_IFLNK | 0o777, 0, 0, 1}, "bin/through": {unix.S_IFREG | 0o644, 0, 0, 1}, "pipe": {unix.S_IFIFO | 0o620, 0, 0, 1}, "absolute": {unix.S_IFREG | 0o644, 0, 0, 1}, long: {unix.S_IFREG | 0o644, 0, 0, 1},
	} {
		st := stat(t, filepath.Join(dir, path))
		if st.Mode != want.mode || st.Uid != want.uid || st.Gid != want.gid || want.nlink != 0 && uint64(st.Nlink) != want.nlink {
			t.Errorf("%.40s: mode %o owner %d:%d links %d, want %+v", path, st.Mode, st.Uid, st.Gid, st.Nlink, want)
		}
		if path != "sbin" && path != "." && st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Mtim.Sec != 1e9 {
			t.Errorf("%.40s: modified at %d, want 1e9", path, st.Mtim.Sec)
		}
	}
	if st := stat(t, filepath.Join(dir, "bin")); st.Mtim.Sec != 1e9 {
		t.Errorf("bin: modified at %d, want 1e9", st.Mtim.Sec)
	}
	if st := stat(t, filepath.Join(dir, "holes")); st.Blocks*512 > 256<<10 || st.Size != 2<<20+8 {
		t.Errorf("holes: %d bytes in %d blocks, want holes", st.Size, st.Blocks)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "holes")); string(b) != "head"+zeros+"tail"+zeros {
		t.Error("holes: the content changed")
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "twice")); string(b) != "second" {
		t.Errorf("twice = %q, want the second", b)
	}
	for _, absent := range []string{"null", "disk"} {
		if _, err := os.Lstat(filepath.Join(dir, absent)); err == nil {
			t.Errorf("%s was made", absent)
		}
	}
	buf := make([]byte, 64)
	for name, want := range map[string]bool{"user.note": true, "security.capability": true, "user.overlay.opaque": false} {
		n, err := unix.Lgetxattr(filepath.Join(dir, "ping"), name, buf)
		if (err == nil && n > 0) != want {
			t.Errorf("ping: attribute %s: %d bytes, %v; want it there: %v", name, n, err, want)
		}
	}
}

func TestUnpackTurnsWhiteoutsIntoOverlays(t *testing.T) {
	dir, _, err := unpackTo(t, tarball(t,
		dirEntry("a"), fileEntry("a/.wh.gone", ""), fileEntry("a/.wh..wh..opq", ""), fileEntry("a/new", "x"),
		fileEntry(".wh.replaced", ""), dirEntry("replaced"), fileEntry("replaced/new", ""),
		fileEntry(".wh.tree", ""), fileEntry("tree/.wh.leaf", ""),
		fileEntry(".wh..wh.plnk", ""), fileEntry("missing/parent/.wh.f", ""),
	), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a/gone", "tree", "missing/parent/f"} {
		if st := stat(t, filepath.Join(dir, name)); st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
			t.Errorf("%s: mode %o, want a whiteout", name, st.Mode)
		}
	}
	buf := make([]byte, 8)
	for name, want := range map[string]string{"a": "y", "replaced": "y", "missing": "", "missing/parent": ""} {
		n, _ := unix.Lgetxattr(filepath.Join(dir, name), opaqueXattr, buf)
		if got := string(buf[:max(n, 0)]); got != want {
			t.Errorf("%s: opaque %q, want %q", name, got, want)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, ".wh..wh.plnk")); err == nil {
		t.Error("AUFS's own file was made")
	}
}

func TestNoLayerReachesOut(t *testing.T) {
	outside := t.TempDir()
	canary := filepath.Join(outside, "canary")
	if err := os.WriteFile(canary, []byte("alive"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 20)
	for name, c := range map[string]struct {
		layer   []tarEntry
		refused bool
	}{
		"climbs":                  {[]tarEntry{fileEntry(up+canary[1:], "dead")}, true},
		"climbs from a folder":    {[]tarEntry{fileEntry("a/../../x", "dead")}, true},
		"hard link climbs":        {[]tarEntry{linkEntry(tar.TypeLink, "x", up+canary[1:]), fileEntry("x", "dead")}, true},
		"hard link is absolute":   {[]tarEntry{linkEntry(tar.TypeLink, "x", canary)}, true}, // there is none in the layer
		"absolute":                {[]tarEntry{fileEntry(canary, "dead")}, false},
		"link then file":          {[]tarEntry{linkEntry(tar.TypeSymlink, "x", outside), fileEntry("x/canary", "dead")}, false},
		"relative link then file": {[]tarEntry{linkEntry(tar.TypeSymlink, "x", up+outside[1:]), fileEntry("x/canary", "dead")}, false},
		"file over a link":        {[]tarEntry{linkEntry(tar.TypeSymlink, "x", canary), fileEntry("x", "dead")}, false},
		"link to a link":          {[]tarEntry{linkEntry(tar.TypeSymlink, "x", canary), linkEntry(tar.TypeLink, "y", "x"), fileEntry("y", "dead")}, false},
		"hard link through link":  {[]tarEntry{linkEntry(tar.TypeSymlink, "x", outside), linkEntry(tar.TypeLink, "y", "x/canary")}, true},
		"whiteout through link":   {[]tarEntry{linkEntry(tar.TypeSymlink, "x", outside), fileEntry("x/.wh.canary", "")}, false},
		"opaque through link":     {[]tarEntry{linkEntry(tar.TypeSymlink, "x", outside), fileEntry("x/.wh..wh..opq", "")}, false},
		"folder's time and mode":  {[]tarEntry{dirEntry("x"), linkEntry(tar.TypeSymlink, "x", outside), dirEntry("x")}, false},
		"folder becomes a link":   {[]tarEntry{dirEntry("x"), fileEntry("x/a", ""), linkEntry(tar.TypeSymlink, "x", outside), fileEntry("x/canary", "dead")}, false},
		"root is a link":          {[]tarEntry{linkEntry(tar.TypeSymlink, ".", outside)}, true},
		"whiteout of dots":        {[]tarEntry{fileEntry(".wh...", "")}, true},
		"proc's links":            {[]tarEntry{linkEntry(tar.TypeSymlink, "x", "/proc/self/root"), fileEntry("x"+canary, "dead")}, false},
	} {
		before := stat(t, outside)
		_, _, err := unpackTo(t, tarball(t, c.layer...), false)
		if (err != nil) != c.refused {
			t.Errorf("%s: error %v; want one: %v", name, err, c.refused)
		}
		after := stat(t, outside)
		if b, err := os.ReadFile(canary); string(b) != "alive" || err != nil || before != after {
			t.Fatalf("%s: the layer reached out: canary %q, %v, folder %+v", name, b, err, after)
		}
		if st := stat(t, canary); st.Nlink != 1 {
			t.Fatalf("%s: the canary has a second name", name)
		}
	}
}

func TestUnpackOwnersThatAreNotMapped(t *testing.T) {
	layer := tarball(t, tarEntry{Header: tar.Header{Name: "f", Uid: 4000000, Gid: 4000000}, content: "x"})
	var unmapped *unmappedError
	if _, _, err := unpackTo(t, layer, false); !errors.As(err, &unmapped) || unmapped.uid != 4000000 {
		t.Errorf("error %v, want one about the owner", err)
	}
	dir, _, err := unpackTo(t, layer, true)
	if err != nil {
		t.Fatal(err)
	}
	if st := stat(t, filepath.Join(dir, "f")); st.Uid != 0 || st.Gid != 0 {
		t.Errorf("owner %d:%d, want root", st.Uid, st.Gid)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(tarball(f, dirEntry("a"), fileEntry("a/b", "x"), linkEntry(tar.TypeSymlink, "l", "/"), fileEntry("l/.wh.c", "")))
	f.Add(tarball(f, linkEntry(tar.TypeLink, "x", "../y")))
	f.Add(tarball(f, linkEntry(tar.TypeSymlink, "x", "../out"), fileEntry("x/file", "dead"), linkEntry(tar.TypeLink, "x/h", "x/file"), fileEntry("x/.wh..wh..opq", "")))
	f.Add(sparseTar(f, 1<<16))
	f.Fuzz(func(t *testing.T, layer []byte) {
		top := t.TempDir()
		dir, out := filepath.Join(top, "layer"), filepath.Join(top, "out")
		file := filepath.Join(out, "file")
		if err := errors.Join(os.Mkdir(dir, 0o755), os.Mkdir(out, 0o755), os.WriteFile(file, []byte("alive"), 0o644)); err != nil {
			t.Fatal(err)
		}
		before, beforeFile := stat(t, out), stat(t, file)
		bounds := limits{entries: 1000, names: 1 << 20, sparse: 1 << 24, free: 1 << 24, ratio: 200}
		_, _ = unpackLayer(t.Context(), bytes.NewReader(layer), dir, true, bounds, io.Discard)
		names, err := os.ReadDir(top)
		if b, readErr := os.ReadFile(file); err != nil || len(names) != 2 || readErr != nil || string(b) != "alive" {
			t.Fatalf("the layer reached out: %v, %v, %q, %v", names, err, b, readErr)
		}
		after, afterFile := stat(t, out), stat(t, file)
		after.Atim, afterFile.Atim = before.Atim, beforeFile.Atim
		if before != after || beforeFile != afterFile {
			t.Fatalf("the layer reached out: %+v, %+v", after, afterFile)
		}
	})
}
