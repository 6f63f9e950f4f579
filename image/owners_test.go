package image

import (
	"archive/tar"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// ownedLayers have what only their headers know when they are unpacked with one id.
func ownedLayers(t *testing.T) [][]byte {
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_bind_service=ep
	return [][]byte{
		tarball(t,
			tarEntry{Header: tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o751, Uid: 3, Gid: 4}},
			tarEntry{Header: tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o2755, Gid: 8}},
			tarEntry{Header: tar.Header{Name: "bin/su", Mode: 0o4755, Uid: 5, Gid: 6}, content: "su"},
			linkEntry(tar.TypeLink, "bin/su2", "bin/su"),
			tarEntry{Header: tar.Header{Name: "sbin", Typeflag: tar.TypeSymlink, Linkname: "bin", Uid: 7, Gid: 7}},
			tarEntry{Header: tar.Header{Name: "sbin/through", Uid: 9}, content: "in bin"},
			tarEntry{Header: tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o620, Uid: 10, Gid: 11}},
			tarEntry{Header: tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}},
			tarEntry{Header: tar.Header{Name: "ping", Mode: 0o755, Uid: 12, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": capability}}, content: "ping"},
			tarEntry{Header: tar.Header{Name: "closed", Mode: 0o001, Uid: 13}, content: noise(1 << 20)},
			tarEntry{Header: tar.Header{Name: "twice", Uid: 14}, content: "first"},
			tarEntry{Header: tar.Header{Name: "twice", Uid: 15}, content: "second"},
			tarEntry{Header: tar.Header{Name: "was", Uid: 16, Typeflag: tar.TypeDir, Mode: 0o700}},
			tarEntry{Header: tar.Header{Name: "was", Uid: 17}, content: "a folder"},
			tarEntry{Header: tar.Header{Name: "escape", Typeflag: tar.TypeSymlink, Linkname: "../../../../../../../../etc", Uid: 18}},
		),
		tarball(t, // nothing of its root: it is as below
			fileEntry("bin/.wh.su", ""),
			tarEntry{Header: tar.Header{Name: "data/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 999, Gid: 999}},
			tarEntry{Header: tar.Header{Name: "data/row", Uid: 999, Gid: 999}, content: "x"},
		),
	}
}

// description is what a tree looks like but for its content and the times of its inodes.
func description(t *testing.T, dir string) map[string]string {
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		capability := make([]byte, 64)
		n, _ := unix.Lgetxattr(p, "security.capability", capability)
		modified := st.Mtim.Sec
		if modified > 1e9 { // a folder that the layer does not tell of is of when it was made
			modified = -1
		}
		out[rel] = fmt.Sprintf("%d:%d %o, modified %d, capability %x", st.Uid, st.Gid, st.Mode, modified, capability[:max(n, 0)])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestOwnersComeBackWithTheRanges(t *testing.T) {
	tr := newRegistry(t)
	tr.push(t, "1", false, hostPlatform(), ownedLayers(t)...)
	ref := mustRef(t, tr.host+"/app:1")
	whole := openStore(t)
	img, err := whole.Pull(t.Context(), ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	open := func(oneID bool) *Store {
		s, err := Open(Options{GraphRoot: dir + "/storage", RunRoot: dir + "/run", IgnoreChownErrors: oneID})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if _, err := open(true).Pull(t.Context(), ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	one, err := open(true).Lookup(t.Context(), ref.String())
	if err != nil {
		t.Fatal(err)
	}
	row := filepath.Join(one.Base, one.Layers[0], "data/row")
	if st := stat(t, row); st.Uid != 0 {
		t.Fatalf("with one id, owner %d, want 0", st.Uid)
	}

	// A process that is killed half-way leaves the mark, and the next begins again.
	root, err := filepath.EvalSymlinks(filepath.Join(one.Base, one.Layers[1]))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(root, "bin/su"), 5, 6); err != nil {
		t.Fatal(err)
	}
	mended, err := open(false).Lookup(t.Context(), ref.String())
	if err != nil {
		t.Fatal(err)
	}
	for i := range img.Layers {
		want, got := description(t, filepath.Join(img.Base, img.Layers[i])+"/."), description(t, filepath.Join(mended.Base, mended.Layers[i])+"/.")
		if !maps.Equal(got, want) {
			t.Errorf("layer %d: mended\n%v\nwant\n%v", i, got, want)
		}
		if ownersMissing(filepath.Join(mended.Base, mended.Layers[i]) + "/.") {
			t.Errorf("layer %d is still marked", i)
		}
	}
	if left, _ := filepath.Glob(dir + "/storage/staging/*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestOwnersThatAreNotAmongTheRanges(t *testing.T) {
	tr := newRegistry(t)
	tr.push(t, "1", false, hostPlatform(), tarball(t, tarEntry{Header: tar.Header{Name: "f", Uid: 4000000}, content: "x"}))
	ref := mustRef(t, tr.host+"/app:1")
	dir := t.TempDir()
	opts := Options{GraphRoot: dir + "/storage", RunRoot: dir + "/run", IgnoreChownErrors: true}
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pull(t.Context(), ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	opts.IgnoreChownErrors = false
	if s, err = Open(opts); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lookup(t.Context(), ref.String()); err == nil {
		t.Error("an image with an owner that is not mapped was found whole")
	} else {
		t.Log(err)
	}
}
