package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// compareFiles checks the regular files of a layer against those on disk.
func compareFiles(dir string, layer []byte) error {
	for tr := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg || strings.Contains(h.Name, whiteoutPrefix) {
			continue
		}
		want, err := io.ReadAll(tr)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join(dir, h.Name))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return errors.New(h.Name + " differs")
		}
	}
}

func pulled(t *testing.T) (*Store, *Image) {
	t.Helper()
	tr, s := newRegistry(t), openStore(t)
	tr.push(t, "1", false, hostPlatform(), threeLayers(t)...)
	img, err := s.Pull(t.Context(), mustRef(t, tr.host+"/app:1"), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s, img
}

func TestWhatIsSavedIsLoadedAgain(t *testing.T) {
	s, img := pulled(t)
	for _, n := range []string{"one:1", "two:2"} {
		if err := s.Tag(t.Context(), img.ID, n); err != nil {
			t.Fatal(err)
		}
	}
	for _, format := range []string{DockerArchive, OCIArchive, OCIDir} {
		t.Run(format, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out")
			if err := s.Save(t.Context(), path, format, []string{"one:1", "two:2"}); err != nil {
				t.Fatal(err)
			}
			if err := s.Save(t.Context(), path, format, []string{"one:1"}); err == nil {
				t.Error("a path that exists was overwritten")
			}
			paths := []string{path}
			if format != OCIDir {
				raw, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				for how, suffix := range []string{".gz", ".zst"} {
					if err := os.WriteFile(path+suffix, squeeze(t, how, raw), 0o600); err != nil {
						t.Fatal(err)
					}
					paths = append(paths, path+suffix)
				}
			}
			for _, p := range paths {
				other := openStore(t)
				images, err := other.Load(t.Context(), p, LoadOptions{})
				if err != nil || len(images) != 1 || images[0].ID != img.ID {
					t.Fatalf("loading %s: %+v, %v", filepath.Base(p), images, err)
				}
				if !slices.Equal(images[0].Names, []string{"docker.io/library/one:1", "docker.io/library/two:2"}) {
					t.Errorf("names: %q", images[0].Names)
				}
				images, err = other.Load(t.Context(), p, LoadOptions{Ref: "two:2", Name: "three"})
				if err != nil || len(images) != 1 || !slices.Contains(images[0].Names, "docker.io/library/three:latest") {
					t.Errorf("loading one: %+v, %v", images, err)
				}
				if _, err := other.Load(t.Context(), p, LoadOptions{Ref: "nosuch"}); err == nil || !strings.Contains(err.Error(), "nosuch") {
					t.Errorf("loading what is not there: %v", err)
				}
			}
		})
	}
}

func TestOthersReadWhatIsSaved(t *testing.T) {
	s, img := pulled(t)
	if err := s.Tag(t.Context(), img.ID, "one:1"); err != nil {
		t.Fatal(err)
	}
	raw, layers, err := s.contents(img.ID)
	if err != nil {
		t.Fatal(err)
	}
	_ = raw
	for format, transport := range map[string]string{DockerArchive: "docker-archive:%:docker.io/library/one:1", OCIArchive: "oci-archive:%:docker.io/library/one:1", OCIDir: "oci:%:docker.io/library/one:1"} {
		path := filepath.Join(t.TempDir(), "out")
		if err := s.Save(t.Context(), path, format, []string{"one:1"}); err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(t.TempDir(), "copy")
		// skopeo verifies every digest as it copies.
		cmd := exec.Command("skopeo", "copy", "--insecure-policy", "--tmpdir", t.TempDir(), strings.Replace(transport, "%", path, 1), "oci:"+copied+":x")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: skopeo: %v\n%s", format, err, out)
		}
		images, err := openStore(t).Load(t.Context(), copied, LoadOptions{Name: "back"})
		if err != nil || len(images) != 1 || len(images[0].Layers) != len(layers) {
			t.Errorf("%s: loading skopeo's copy: %+v, %v", format, images, err)
		}
	}
}

func TestLoadFaults(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	good := filepath.Join(dir, "good.tar")
	src, img := pulled(t)
	if err := src.Save(t.Context(), good, DockerArchive, []string{img.ID}); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Clone(whole)
	forged[len(forged)/2] ^= 1
	for name, c := range map[string]struct{ path, want string }{
		"missing":   {filepath.Join(dir, "nosuch"), "no such file"},
		"text":      {write("text", []byte(strings.Repeat("hello ", 1000))), "loading"},
		"empty":     {write("empty", nil), "holds no image"},
		"cut off":   {write("cut", whole[:len(whole)/2]), "loading"},
		"forged":    {write("forged", forged), "digest"},
		"cut gzip":  {write("cut.gz", squeeze(t, 0, whole)[:1000]), "cut off"},
		"no layout": {dir, "holds no image"},
	} {
		s := openStore(t)
		_, err := s.Load(t.Context(), c.path, LoadOptions{})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want one line about %q", name, err, c.want)
		}
		clean(t, s)
	}
}

func TestNamesComeAndGo(t *testing.T) {
	s, img := pulled(t)
	ctx := t.Context()
	first := img.Names[0]
	if err := s.Tag(ctx, first, "box"); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(ctx, "nosuch", "x"); !errors.As(err, new(*NotFoundError)) {
		t.Errorf("tagging nothing: %v", err)
	}
	for _, name := range []string{"box", "box:latest", "docker.io/library/box", first, img.ID, img.ID[:8], "sha256:" + img.ID, img.Digest.String(), "box@" + img.Digest.String()} {
		if got, err := s.Lookup(ctx, name); err != nil || got.ID != img.ID {
			t.Errorf("Lookup(%q) = %v, %v", name, got, err)
		}
	}
	if _, _, err := s.Remove(ctx, img.ID, RemoveOptions{}); err == nil {
		t.Error("an image of two names was removed by id")
	}
	untagged, deleted, err := s.Remove(ctx, "box", RemoveOptions{})
	if err != nil || len(untagged) != 1 || len(deleted) != 0 {
		t.Errorf("removing a name: %q, %q, %v", untagged, deleted, err)
	}
	var used *InUseError
	inUse := RemoveOptions{InUse: func(string) []string { return []string{"web"} }}
	if _, _, err := s.Remove(ctx, first, inUse); !errors.As(err, &used) {
		t.Errorf("removing what is in use: %v", err)
	}
	untagged, deleted, err = s.Remove(ctx, first, RemoveOptions{})
	if err != nil || len(untagged) != 1 || len(deleted) != 1 {
		t.Errorf("removing the last name: %q, %q, %v", untagged, deleted, err)
	}
	if _, err := s.Lookup(ctx, first); !errors.As(err, new(*NotFoundError)) {
		t.Errorf("looking up what is gone: %v", err)
	}
	if layers, err := s.store.Layers(); err != nil || len(layers) != 0 {
		t.Errorf("layers left: %d, %v", len(layers), err)
	}
}

func TestStoreFaultsAreOneLine(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(dir, "damaged")
	if err := errors.Join(os.MkdirAll(damaged+"/overlay-images", 0o700), os.WriteFile(damaged+"/overlay-images/images.json", []byte("{nonsense"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, root := range map[string]string{"not a folder": file + "/storage", "read-only": "/proc/1/storage", "damaged": damaged} {
		s, err := Open(Options{GraphRoot: root, RunRoot: filepath.Join(dir, "run"+name)})
		if err == nil {
			_, err = s.List(t.Context())
		}
		if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "image store") {
			t.Errorf("%s: error %v, want one line", name, err)
		}
	}
}

func TestFullDiskIsOneLineAndLeavesNothing(t *testing.T) {
	tr := newRegistry(t)
	tr.push(t, "1", false, hostPlatform(), threeLayers(t)...)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s, err := Open(Options{GraphRoot: dir + "/storage", RunRoot: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Pull(t.Context(), mustRef(t, tr.host+"/app:1"), PullOptions{})
	if err == nil || !strings.Contains(err.Error(), "no space is left") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v, want one line about space", err)
	}
	clean(t, s)
	if err := unix.Mount("tmpfs", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "size=3m"); err != nil {
		t.Fatal(err)
	}
	_, err = s.Pull(t.Context(), mustRef(t, tr.host+"/app:1"), PullOptions{})
	if err == nil || !strings.Contains(err.Error(), "read-only") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v, want one line about a read-only file system", err)
	}
	if _, err := s.List(t.Context()); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("the next call: %v, want the same", err)
	}
}
