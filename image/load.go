package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	gcrname "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// containerdName is where containerd and buildkit write an image's full name in an OCI index.
const containerdName = "io.containerd.image.name"

// LoadOptions choose among the images of an archive.
type LoadOptions struct {
	Ref      string // only the image of this name; empty: all
	Name     string // a name to give the image; only with one image
	Platform string // as PullOptions
	Progress Progress
}

// Load reads a docker archive, an OCI archive or an OCI layout folder; archives may be compressed with gzip or zstd.
func (s *Store) Load(ctx context.Context, path string, o LoadOptions) ([]*Image, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, loadError(path, err)
	}
	var found []source
	switch {
	case st.IsDir():
		found, err = layoutSources(path, path, o)
	default:
		var done func()
		found, done, err = s.archiveSources(path, o)
		if done != nil {
			defer done()
		}
	}
	if err != nil {
		return nil, loadError(path, err)
	}
	if found, err = pick(found, path, o); err != nil {
		return nil, err
	}
	var out []*Image
	for _, src := range found {
		img, err := s.add(ctx, src, o.Progress)
		if err != nil {
			return out, loadError(path, err)
		}
		out = append(out, img)
	}
	return out, nil
}

func loadError(path string, err error) error {
	var told *Error
	var ref *ReferenceError
	switch {
	case errors.As(err, &told), errors.As(err, &ref), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, os.ErrNotExist):
		return &Error{Message: fmt.Sprintf("loading %s: no such file or folder", path), Err: err}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &Error{Message: fmt.Sprintf("loading %s: it is cut off", path), Err: err}
	}
	return fmt.Errorf("loading %s: %w", path, err)
}

// pick applies Ref and Name.
func pick(found []source, path string, o LoadOptions) ([]source, error) {
	if o.Ref != "" {
		want, err := ParseReference(o.Ref)
		if err != nil {
			return nil, err
		}
		var names []string
		var chosen []source
		for _, src := range found {
			names = append(names, src.names...)
			for _, n := range src.names {
				if n == want.String() {
					chosen = append(chosen, source{image: src.image, index: src.index, names: []string{n}})
				}
			}
		}
		if len(chosen) == 0 {
			return nil, &Error{Message: fmt.Sprintf("%s holds no image %q; it holds %s", path, o.Ref, strings.Join(names, ", "))}
		}
		found = chosen[:1]
	}
	if o.Name == "" {
		return found, nil
	}
	ref, err := ParseReference(o.Name)
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, &Error{Message: fmt.Sprintf("%s holds %d images, and one name was given", path, len(found)), Remedy: "choose one with --ref"}
	}
	found[0].names = []string{ref.String()}
	return found, nil
}

// layoutSources reads an OCI layout folder. called is its name for images that have only a tag there.
func layoutSources(dir, called string, o LoadOptions) ([]source, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, &Error{Message: fmt.Sprintf("%s is not an OCI layout: it has no index.json", dir)}
		}
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	platform, err := parsePlatform(o.Platform)
	if err != nil {
		return nil, err
	}
	var out []source
	at := map[v1.Hash]int{}
	for _, d := range m.Manifests {
		names := annotatedNames(d.Annotations, called)
		if i, ok := at[d.Digest]; ok {
			out[i].names = uniqueNames(append(out[i].names, names...))
			continue
		}
		src := source{names: names}
		switch {
		case d.MediaType.IsIndex():
			inner, err := index.ImageIndex(d.Digest)
			if err != nil {
				return nil, err
			}
			if src.image, err = choose(inner, platform, strings.Join(names, ", ")); err != nil {
				return nil, err
			}
			if src.index, err = inner.RawManifest(); err != nil {
				return nil, err
			}
		case d.MediaType.IsImage():
			if src.image, err = index.Image(d.Digest); err != nil {
				return nil, err
			}
		default:
			continue // signatures and the like
		}
		at[d.Digest] = len(out)
		out = append(out, src)
	}
	if len(out) == 0 {
		return nil, &Error{Message: fmt.Sprintf("%s holds no image", called)}
	}
	return out, nil
}

// annotatedNames reads an image's name in an OCI index: a full name, or a tag of something called as its folder.
func annotatedNames(a map[string]string, called string) []string {
	if ref, err := ParseReference(a[containerdName]); err == nil {
		return []string{ref.String()}
	}
	text := a[imagespec.AnnotationRefName]
	if strings.ContainsAny(text, ":/") {
		if ref, err := ParseReference(text); err == nil {
			return []string{ref.String()}
		}
	}
	base := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(called), filepath.Ext(called)), ".oci")
	if text != "" {
		if ref, err := ParseReference(strings.ToLower(base) + ":" + text); err == nil {
			return []string{ref.String()}
		}
	}
	return nil
}

// archiveSources reads a docker or OCI archive. done removes what it has unpacked meanwhile.
func (s *Store) archiveSources(path string, o LoadOptions) (found []source, done func(), err error) {
	tmp, err := os.MkdirTemp(s.root, "load-")
	if err != nil {
		return nil, nil, storeError("loading "+path, s.root, err)
	}
	done = func() { os.RemoveAll(tmp) }
	plain, docker, err := plainArchive(path, tmp)
	if err != nil {
		return nil, done, err
	}
	if !docker {
		if err := extractLayout(plain, tmp); err != nil {
			return nil, done, err
		}
		found, err = layoutSources(tmp, path, o)
		return found, done, err
	}
	open := func() (io.ReadCloser, error) { return os.Open(plain) }
	m, err := tarball.LoadManifest(open)
	if err != nil {
		return nil, done, err
	}
	for i, d := range m {
		src := source{}
		var tag *gcrname.Tag
		for _, t := range d.RepoTags {
			ref, err := ParseReference(t)
			if err != nil {
				return nil, done, err
			}
			src.names = append(src.names, ref.String())
			if tag == nil {
				parsed, err := gcrname.NewTag(t, gcrname.WeakValidation)
				if err != nil {
					return nil, done, err
				}
				tag = &parsed
			}
		}
		if tag == nil && len(m) > 1 {
			return nil, done, &Error{Message: fmt.Sprintf("image %d of %s has no name and cannot be told from the others", i+1, path)}
		}
		if src.image, err = tarball.Image(open, tag); err != nil {
			return nil, done, err
		}
		found = append(found, src)
	}
	return found, done, nil
}

// plainArchive gives the path of an uncompressed archive, which is the given one if it is, and says whether it is
// a docker archive rather than an OCI one.
func plainArchive(path, tmp string) (plain string, docker bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	r, err := decompress(f)
	if err != nil {
		return "", false, err
	}
	defer r.Close()
	var head [262]byte
	if _, err := f.ReadAt(head[:], 0); err == nil && string(head[257:262]) == "ustar" {
		docker, err := kind(f, path)
		return path, docker, err
	}
	plain = filepath.Join(tmp, "archive")
	out, err := os.OpenFile(plain, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", false, err
	}
	defer out.Close()
	if _, err := io.Copy(out, r); err != nil {
		return "", false, err
	}
	docker, err = kind(out, path)
	return plain, docker, err
}

// kind looks which of the two formats' first files an archive holds. Newer docker archives hold both.
func kind(f *os.File, path string) (docker bool, err error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	oci := false
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, &Error{Message: fmt.Sprintf("%s is not an image archive", path), Remedy: "make one with: docker save, podman save, skopeo copy", Err: err}
		}
		switch filepath.Clean(h.Name) {
		case "manifest.json":
			return true, nil
		case "oci-layout", "index.json":
			oci = true
		}
	}
	if !oci {
		return false, &Error{Message: fmt.Sprintf("%s is not an image archive: it has neither manifest.json nor index.json", path), Remedy: "make one with: docker save, podman save, skopeo copy"}
	}
	return false, nil
}

// extractLayout unpacks an OCI archive: plain files of the names that a layout may have, and nothing else.
func extractLayout(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Clean(h.Name)
		if h.Typeflag != tar.TypeReg || name != "oci-layout" && name != "index.json" && !strings.HasPrefix(name, "blobs/") {
			continue
		}
		if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		out, err := root.Create(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, r)
		if cerr := out.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
}
