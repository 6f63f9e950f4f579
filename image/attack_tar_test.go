package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// canary is a tree outside of a store that no layer may change.
type canary struct{ dir, before string }

// newCanary makes a folder with a file, a link, a fifo and a folder in it.
func newCanary(t *testing.T) *canary {
	t.Helper()
	dir := t.TempDir()
	err := errors.Join(
		os.WriteFile(filepath.Join(dir, "file"), []byte("alive"), 0o640),
		os.MkdirAll(filepath.Join(dir, "folder", "sub"), 0o750),
		os.WriteFile(filepath.Join(dir, "folder", "deep"), []byte("alive, too"), 0o600),
		os.Symlink("file", filepath.Join(dir, "link")),
		unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	c := &canary{dir: dir}
	c.before = c.describe(t)
	return c
}

// describe lists all that can be seen of the tree, but for the times at which it was read.
func (c *canary) describe(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(c.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st := stat(t, p)
		content := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			raw, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			content = string(raw)
		case unix.S_IFLNK:
			if content, err = os.Readlink(p); err != nil {
				return err
			}
		}
		list := make([]byte, 4096)
		n, err := unix.Llistxattr(p, list)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s ino %d mode %o owner %d:%d links %d size %d modified %v changed %v attributes %q: %q\n", p, st.Ino, st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Mtim, st.Ctim, list[:n], content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// intact tells whether the tree is as it was.
func (c *canary) intact(t *testing.T) bool { t.Helper(); return c.describe(t) == c.before }

// layerAttack is a layer made to change the canary at out, whose path up from any layer is up.
type layerAttack struct {
	refused bool // else it is unpacked, with all of it below the layer's root
	layer   func(out, up string) []tarEntry
}

func owned(e tarEntry, mode int64) tarEntry {
	e.Mode = mode
	return e
}

// unpackNaive unpacks as tools of old did.
func unpackNaive(t *testing.T, layer []byte, dir string) error {
	t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	u := &unpacker{ctx: t.Context(), root: root, limits: defaultLimits(), naive: true}
	_, err = u.unpack(bytes.NewReader(layer), io.Discard)
	return err
}

// TestAttackLayer has layers that write outside of their own folder where a tool takes names and links as they are.
//
// Wall: layer paths.
func TestAttackLayer(t *testing.T) {
	link := func(name, to string) tarEntry { return linkEntry(tar.TypeSymlink, name, to) }
	hard := func(name, to string) tarEntry { return linkEntry(tar.TypeLink, name, to) }
	for name, a := range map[string]layerAttack{
		"an absolute name": {false, func(out, _ string) []tarEntry { return []tarEntry{fileEntry(out+"/file", "dead")} }},
		"a name with dots": {true, func(_, up string) []tarEntry { return []tarEntry{fileEntry(up+"/file", "dead")} }},
		"dots after a folder": {true, func(_, up string) []tarEntry {
			return []tarEntry{dirEntry("a"), fileEntry("a/../"+up+"/file", "dead")}
		}},
		"a folder's mode by dots": {true, func(_, up string) []tarEntry { return []tarEntry{owned(dirEntry(up+"/folder"), 0o777)} }},
		"a file through a link":   {false, func(out, _ string) []tarEntry { return []tarEntry{link("x", out), fileEntry("x/file", "dead")} }},
		"a file through a relative link": {false, func(_, up string) []tarEntry {
			return []tarEntry{link("x", up), fileEntry("x/file", "dead")}
		}},
		"a file through two links": {false, func(out, _ string) []tarEntry {
			return []tarEntry{link("y", out), link("x", "y/folder"), fileEntry("x/deep", "dead")}
		}},
		"a file through a link in place of a folder": {false, func(out, _ string) []tarEntry {
			return []tarEntry{dirEntry("x"), fileEntry("x/a", ""), link("x", out), fileEntry("x/file", "dead")}
		}},
		"a file through a process's root": {false, func(out, _ string) []tarEntry {
			return []tarEntry{link("x", "/proc/self/root"), fileEntry("x"+out+"/file", "dead")}
		}},
		"a new folder through a link": {false, func(out, _ string) []tarEntry {
			return []tarEntry{link("x", out), dirEntry("x/new")}
		}},
		"a new fifo through a link": {false, func(out, _ string) []tarEntry {
			return []tarEntry{link("x", out), {Header: tar.Header{Name: "x/new", Typeflag: tar.TypeFifo, Mode: 0o666}}}
		}},
		"a new link through a link": {false, func(out, _ string) []tarEntry {
			return []tarEntry{link("x", out), link("x/new", "/etc/passwd")}
		}},
		"a hard link by dots":             {true, func(_, up string) []tarEntry { return []tarEntry{hard("x", up+"/file")} }},
		"a hard link by an absolute name": {true, func(out, _ string) []tarEntry { return []tarEntry{hard("x", out+"/file")} }},
		"a hard link through a link": {true, func(out, _ string) []tarEntry {
			return []tarEntry{link("x", out), hard("y", "x/file")}
		}},
		"a hard link made outside": {false, func(out, _ string) []tarEntry {
			return []tarEntry{fileEntry("mine", "mine"), link("x", out), hard("x/new", "mine")}
		}},
		"a whiteout through a link": {false, func(out, _ string) []tarEntry {
			return []tarEntry{link("x", out), fileEntry("x/.wh.new", "")}
		}},
		"a whiteout by dots": {true, func(_, up string) []tarEntry { return []tarEntry{fileEntry(up+"/.wh.new", "")} }},
		"an opaque mark through a link": {false, func(out, _ string) []tarEntry {
			return []tarEntry{link("x", out), fileEntry("x/.wh..wh..opq", "")}
		}},
		"an attribute through a link": {false, func(out, _ string) []tarEntry {
			return []tarEntry{link("x", out), {Header: tar.Header{Name: "x/folder", Typeflag: tar.TypeDir, Mode: 0o750, PAXRecords: map[string]string{"SCHILY.xattr.user.note": "dead"}}}}
		}},
	} {
		t.Run(name, func(t *testing.T) { attackLayer(t, a) })
	}
}

func attackLayer(t *testing.T, a layerAttack) {
	c := newCanary(t)
	s := openStore(t)
	up := strings.Repeat("../", 40) + c.dir[1:]
	layer := tarball(t, a.layer(c.dir, up)...)
	path := archiveOf(t, layer)
	images, err := s.Load(t.Context(), path, LoadOptions{Name: "hostile"})
	if (err != nil) != a.refused {
		t.Errorf("error %v; want one: %v", err, a.refused)
	}
	if !c.intact(t) {
		t.Fatalf("the layer reached out:\n%s\nwas\n%s", c.describe(t), c.before)
	}
	if a.refused {
		oneLine(t, err)
		clean(t, s)
	} else if len(images) != 1 {
		t.Errorf("images: %v", images)
	}
	// The same layer does harm where names are the host's.
	t.Log("without the wall:", unpackNaive(t, layer, t.TempDir()))
	if c.intact(t) {
		t.Error("the attack does nothing without the wall either: it proves nothing")
	}
}

func oneLine(t *testing.T, err error) {
	t.Helper()
	if err == nil || strings.ContainsAny(err.Error(), "\n\r") || len(err.Error()) > 2*maxSaid {
		t.Errorf("error %q, want one line", err)
	}
}

// archiveOf writes a docker archive of one image with these layers.
func archiveOf(t testing.TB, layers ...[]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive.tar")
	if err := os.WriteFile(path, dockerTar(t, layers...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestAttackLayerBomb has layers that are small to send and large to keep.
//
// Wall: layer limits.
func TestAttackLayerBomb(t *testing.T) {
	small := limits{entries: 100, names: 10_000, sparse: 1 << 20, free: 1 << 20, ratio: 200}
	none := limits{entries: math.MaxInt, names: math.MaxInt64, sparse: math.MaxInt64, free: math.MaxInt64, ratio: 1}
	many := func(n int, name string) (out []tarEntry) {
		for i := range n {
			out = append(out, fileEntry(fmt.Sprintf(name, i), ""))
		}
		return out
	}
	zeros := strings.Repeat("\x00", 4<<20)
	letters := strings.Repeat("A", 4<<20)
	for name, c := range map[string]struct {
		layer []byte
		want  string
	}{
		"very many files":      {tarball(t, many(101, "%d")...), "more than 100 files"},
		"the same file often":  {tarball(t, many(101, "same%.0d")...), "more than 100 files"},
		"very long names":      {tarball(t, many(50, strings.Repeat("n", 240)+"%d")...), "names take more than"},
		"a sparse file":        {sparseTar(t, 2<<20), "sparse files are larger than 1.0 MB"},
		"zeros packed by gzip": {squeeze(t, 0, tarball(t, fileEntry("f", zeros))), "decompression bomb"},
		"text packed by zstd":  {squeeze(t, 1, tarball(t, fileEntry("f", letters))), "decompression bomb"},
	} {
		t.Run(name, func(t *testing.T) {
			path := archiveOf(t, c.layer)
			s := openStore(t)
			s.limits = small
			_, err := s.Load(t.Context(), path, LoadOptions{Name: "hostile"})
			oneLine(t, err)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			clean(t, s)
			s.limits = none
			if _, err := s.Load(t.Context(), path, LoadOptions{Name: "hostile"}); err != nil {
				t.Errorf("without the wall: %v", err)
			}
			if !t.Failed() {
				t.Logf("attack layer bomb: %s: held; succeeds without the wall (layer limits)", name)
			}
		})
	}
}

// TestLimitsAreSet guards against a limit that is left out: the one above has smaller ones of its own.
func TestLimitsAreSet(t *testing.T) {
	want := limits{entries: 4_000_000, names: 512 << 20, sparse: 256 << 30, free: 4 << 30, ratio: 200}
	if got := defaultLimits(); got != want {
		t.Errorf("limits %+v, want %+v", got, want)
	}
}

// TestTenGigabytesOfHolesTakeNoSpace unpacks a sparse file of the size that has filled other tools' disks.
func TestTenGigabytesOfHolesTakeNoSpace(t *testing.T) {
	const total = 10 << 30
	dir, _, err := unpackTo(t, sparseTar(t, total), false)
	if err != nil {
		t.Fatal(err)
	}
	if st := stat(t, filepath.Join(dir, "sparse")); st.Size != total || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes in %d blocks, want %d in next to none", st.Size, st.Blocks, total)
	}
}

// sparseTar has one sparse file, in GNU's PAX format 1.0, with 512 bytes at its end.
func sparseTar(t testing.TB, total int64) []byte {
	t.Helper()
	sparseMap := fmt.Sprintf("1\n%d\n512\n", total-512)
	content := sparseMap + strings.Repeat("\x00", 512-len(sparseMap)) + strings.Repeat("d", 512)
	records := ""
	for _, kv := range [][2]string{{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"}, {"GNU.sparse.name", "sparse"}, {"GNU.sparse.realsize", fmt.Sprint(total)}} {
		records += paxRecord(kv[0], kv[1])
	}
	return rawTar(
		rawEntry{"PaxHeaders/sparse", tar.TypeXHeader, records},
		rawEntry{"GNUSparseFile.0/sparse", tar.TypeReg, content},
	)
}

func paxRecord(key, value string) string {
	n := len(key) + len(value) + 3
	for n != len(fmt.Sprintf("%d %s=%s\n", n, key, value)) {
		n = len(fmt.Sprintf("%d %s=%s\n", n, key, value))
	}
	return fmt.Sprintf("%d %s=%s\n", n, key, value)
}

// rawEntry is one that archive/tar does not write.
type rawEntry struct {
	name    string
	kind    byte
	content string
}

func rawTar(entries ...rawEntry) []byte {
	var b bytes.Buffer
	for _, e := range entries {
		var h [512]byte
		copy(h[:100], e.name)
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00        ", len(e.content), 1))
		h[156] = e.kind
		copy(h[257:], "ustar\x0000")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		b.Write(h[:])
		b.WriteString(e.content)
		b.Write(make([]byte, -len(e.content)&511))
	}
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

// TestAttackLayerDepth makes folders below the longest path that the kernel takes, where nothing takes them away.
//
// Wall: layer depth.
func TestAttackLayerDepth(t *testing.T) {
	deep := strings.TrimSuffix(strings.Repeat("d/", 1000), "/")
	var layer []tarEntry
	at := ""
	for i := range 4 {
		layer = append(layer, dirEntry(at+deep), linkEntry(tar.TypeSymlink, fmt.Sprintf("l%d", i), at+deep))
		at = fmt.Sprintf("l%d/", i)
	}
	s := openStore(t)
	_, err := s.Load(t.Context(), archiveOf(t, tarball(t, layer...)), LoadOptions{Name: "hostile"})
	if wallDown() {
		if err == nil {
			t.Error("it was loaded")
		}
		return
	}
	oneLine(t, err)
	if err == nil || !strings.Contains(err.Error(), "too deep") {
		t.Errorf("error %v", err)
	}
	clean(t, s)
}

// TestLayerNames: a name is whatever bytes the kernel takes, and no more.
func TestLayerNames(t *testing.T) {
	for name, c := range map[string]struct {
		entry   rawEntry
		long    string // a PAX path in place of the name
		refused bool
		made    string
	}{
		"with a line end":            {entry: rawEntry{"a\nb\x1b[2J", tar.TypeReg, "x"}, made: "a\nb\x1b[2J"},
		"of what is no UTF-8":        {entry: rawEntry{"a\xff\xfe", tar.TypeReg, "x"}, made: "a\xff\xfe"},
		"that ends at a NUL":         {entry: rawEntry{"a\x00b", tar.TypeReg, "x"}, made: "a"},
		"with a NUL in an extension": {entry: rawEntry{"a", tar.TypeReg, "x"}, long: "a\x00../../b", refused: true},
		"longer than the kernel's":   {entry: rawEntry{"a", tar.TypeReg, "x"}, long: strings.Repeat("n", 256), refused: true},
		"of 255 bytes":               {entry: rawEntry{"a", tar.TypeReg, "x"}, long: strings.Repeat("n", 255), made: strings.Repeat("n", 255)},
		"of a megabyte":              {entry: rawEntry{"a", tar.TypeReg, "x"}, long: strings.Repeat("n/", 400_000) + "f", refused: true},
		"with dots of the path's":    {entry: rawEntry{"...", tar.TypeReg, "x"}, made: "..."},
	} {
		t.Run(name, func(t *testing.T) {
			entries := []rawEntry{c.entry}
			if c.long != "" {
				entries = append([]rawEntry{{"PaxHeaders/a", tar.TypeXHeader, paxRecord("path", c.long)}}, entries...)
			}
			s := openStore(t)
			images, err := s.Load(t.Context(), archiveOf(t, rawTar(entries...)), LoadOptions{Name: "hostile"})
			if c.refused {
				oneLine(t, err)
				clean(t, s)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			names, err := os.ReadDir(filepath.Join(images[0].Base, images[0].Layers[0]))
			if err != nil || len(names) != 1 || names[0].Name() != c.made {
				t.Errorf("made %q, %v; want %q", names, err, c.made)
			}
		})
	}
}

// TestAttackOtherLayers has a layer that marks its files with what overlayfs acts on, or makes what takes files of other
// layers away.
//
// Wall: layer marks.
func TestAttackOtherLayers(t *testing.T) {
	marks := map[string]string{}
	for _, space := range []string{"user", "trusted"} {
		for _, key := range []string{"opaque", "redirect", "metacopy", "whiteout", "origin", "overlay.opaque"} {
			marks["SCHILY.xattr."+space+".overlay."+key] = "y"
		}
	}
	marks["SCHILY.xattr.user.whisk.owners"] = "one"
	s := openStore(t)
	images, err := s.Load(t.Context(), archiveOf(t, tarball(t,
		tarEntry{Header: tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: marks}},
		tarEntry{Header: tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: marks}},
		tarEntry{Header: tar.Header{Name: "file", PAXRecords: marks}, content: "x"},
		tarEntry{Header: tar.Header{Name: "etc/passwd", Typeflag: tar.TypeChar, Mode: 0o666}},
		tarEntry{Header: tar.Header{Name: "null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3}},
		tarEntry{Header: tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Mode: 0o666, Devmajor: 8}},
	)), LoadOptions{Name: "hostile"})
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(images[0].Base, images[0].Layers[0])
	for _, name := range []string{".", "etc", "file"} {
		list := make([]byte, 4096)
		n, err := unix.Listxattr(filepath.Join(root, name), list)
		if err != nil || bytes.Contains(list[:n], []byte("overlay.")) || bytes.Contains(list[:n], []byte("whisk.")) {
			t.Errorf("%s: attributes %q, %v; want none of overlayfs's or whisk's", name, list[:n], err)
		}
	}
	for _, name := range []string{"etc/passwd", "null", "disk"} {
		if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}

// dockerTar is an archive of docker save, of one image without a name.
func dockerTar(t testing.TB, layers ...[]byte) []byte {
	t.Helper()
	config := ocispec.Image{Platform: hostPlatform(), Config: ocispec.ImageConfig{Cmd: []string{"/run"}}}
	config.RootFS.Type = "layers"
	item := struct {
		Config string
		Layers []string
	}{Config: "config.json"}
	var entries []tarEntry
	for i, l := range layers {
		z, err := decompress(bytes.NewReader(l), defaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(raw))
		item.Layers = append(item.Layers, fmt.Sprintf("%d.tar", i))
		entries = append(entries, fileEntry(item.Layers[i], string(l)))
	}
	entries = append(entries, fileEntry("config.json", string(mustJSON(t, config))), fileEntry("manifest.json", string(mustJSON(t, []any{item}))))
	return tarball(t, entries...)
}
