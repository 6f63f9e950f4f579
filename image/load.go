package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// containerdName is where containerd and BuildKit write an image's full name in an OCI index.
const containerdName = "io.containerd.image.name"

// maxIndexFile bounds index.json and manifest.json of an archive, as maxManifest does a registry's answer.
const maxIndexFile = maxManifest

// LoadOptions chooses among the images of an archive.
type LoadOptions struct {
	Ref      string   // only the image of this name, tag or digest; empty: all
	Name     string   // the name to give it; only for one image. It replaces those of the archive
	Platform string   // os/arch[/variant]; empty is this machine's
	Progress Progress // may be nil
}

// packed is one image of an archive.
type packed struct {
	names []string // in normal form
	tag   string   // a name that is none by itself, as layouts have it
	id    digest.Digest
	open  func() (*bundle, error)
}

// Load reads the images of a docker archive, an OCI archive or an OCI layout folder; archives may be packed by gzip or
// zstd. Digests are verified as those of a pull are. An image of a layout whose name there is a mere tag gets no name
// but LoadOptions.Name. On an error the images before it are in the store, and returned.
func (s *Store) Load(ctx context.Context, path string, opts LoadOptions) (_ []*Image, err error) {
	defer s.catch(&err)
	if err := s.check(); err != nil {
		return nil, err
	}
	want, err := parsePlatform(opts.Platform)
	if err != nil {
		return nil, err
	}
	src, err := openFiles(ctx, path, s.opts.GraphRoot, s.limits)
	if err != nil {
		return nil, loadError(path, err)
	}
	defer src.close() //nolint:errcheck // it was only read
	found, err := listImages(src, want)
	if err == nil {
		found, err = pick(found, opts)
	}
	if err != nil {
		return nil, loadError(path, err)
	}
	var images []*Image
	for _, p := range found {
		b, err := p.open()
		if err != nil {
			return images, loadError(path, err)
		}
		img, err := s.ingest(ctx, b, p.names, opts.Progress)
		if err != nil {
			return images, loadError(path, err)
		}
		images = append(images, img)
	}
	return images, nil
}

func loadError(path string, err error) error {
	_, told := errors.AsType[*Error](err)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case told:
		return fmt.Errorf("loading %q: %w", path, err)
	case errors.Is(err, fs.ErrNotExist):
		return &Error{Message: fmt.Sprintf("loading %q: %s", path, rootCause(err)), Err: err}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &Error{Message: fmt.Sprintf("loading %q: it is cut off", path), Err: err}
	}
	return &Error{Message: fmt.Sprintf("loading %q: %s", path, rootCause(err)), Err: err}
}

// listImages reads what an archive says it holds. Newer docker archives are layouts as well; manifest.json has the names.
func listImages(src files, want ocispec.Platform) ([]packed, error) {
	raw, err := readFile(src, "manifest.json", maxIndexFile)
	if err == nil {
		return dockerImages(src, raw)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	raw, err = readFile(src, "index.json", maxIndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Message: "it holds no image: neither manifest.json nor index.json is in it", Remedy: "make one with: docker save, podman save, skopeo copy"}
	}
	if err != nil {
		return nil, err
	}
	return layoutImages(src, raw, want)
}

func readFile(src files, name string, bound int64) ([]byte, error) {
	f, _, err := src.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f, bound, name)
}

// dockerImages reads manifest.json of docker save.
func dockerImages(src files, raw []byte) ([]packed, error) {
	var items []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, fmt.Errorf("reading manifest.json: %w", err)
	}
	var found []packed
	for _, item := range items {
		p := packed{open: func() (*bundle, error) { return dockerBundle(src, item.Config, item.Layers) }}
		for _, t := range item.RepoTags {
			ref, err := ParseReference(t)
			if err != nil {
				return nil, err
			}
			p.names = append(p.names, ref.String())
		}
		found = append(found, p)
	}
	return found, nil
}

func dockerBundle(src files, configName string, layerNames []string) (*bundle, error) {
	config, err := readFile(src, configName, maxConfig)
	if err != nil {
		return nil, err
	}
	b := &bundle{config: config, layers: make([]blob, len(layerNames))}
	for i, name := range layerNames {
		f, n, err := src.open(name)
		if err != nil {
			return nil, err
		}
		f.Close()
		b.layers[i].size = n
	}
	if err := pairLayers(b.layers, config); err != nil {
		return nil, err
	}
	b.openLayer = func(_ context.Context, i int) (io.ReadCloser, error) {
		f, _, err := src.open(layerNames[i])
		return f, err
	}
	return b, nil
}

// layoutImages reads index.json of an OCI layout (image-spec image-layout.md).
func layoutImages(src files, raw []byte, want ocispec.Platform) ([]packed, error) {
	index, err := parseIndex(raw)
	if err != nil {
		return nil, err
	}
	var found []packed
	for _, d := range index {
		if d.Platform != nil && d.Platform.OS == "unknown" {
			continue // an attestation
		}
		names, tag := annotated(d.Annotations)
		if i := slices.IndexFunc(found, func(p packed) bool { return p.id == d.Digest }); i >= 0 {
			found[i].names = append(found[i].names, names...)
			continue
		}
		found = append(found, packed{names: names, tag: tag, id: d.Digest, open: func() (*bundle, error) {
			raw, err := readBlob(src, d.Digest, maxManifest)
			if err != nil {
				return nil, err
			}
			return bundleFrom(raw, d.MediaType, want, reader{
				manifest: func(d ocispec.Descriptor) ([]byte, error) { return readBlob(src, d.Digest, maxManifest) },
				config:   func(d ocispec.Descriptor) ([]byte, error) { return readBlob(src, d.Digest, maxConfig) },
				layer: func(_ context.Context, d digest.Digest) (io.ReadCloser, error) {
					f, _, err := src.open(blobPath(d))
					return f, err
				},
			})
		}})
	}
	if len(found) == 0 {
		return nil, &Error{Message: "it holds no image: its index is empty"}
	}
	return found, nil
}

func blobPath(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

// readBlob reads a whole blob of a layout and verifies it.
func readBlob(src files, d digest.Digest, bound int64) ([]byte, error) {
	raw, err := readFile(src, blobPath(d), bound)
	if err != nil {
		return nil, err
	}
	if got := d.Algorithm().FromBytes(raw); got != d {
		return nil, &Error{Message: fmt.Sprintf("blob %s has the wrong digest: %s", d, got)}
	}
	return raw, nil
}

// annotated reads an image's name in an OCI index: a full one, or by the specification a tag of something unsaid.
func annotated(annotations map[string]string) (names []string, tag string) {
	tag = annotations[ocispec.AnnotationRefName]
	for _, text := range []string{annotations[containerdName], tag} {
		if strings.ContainsAny(text, ":/") {
			if ref, err := ParseReference(text); err == nil {
				return []string{ref.String()}, tag
			}
		}
	}
	return nil, tag
}

// pick applies Ref and Name.
func pick(found []packed, opts LoadOptions) ([]packed, error) {
	if opts.Ref != "" {
		var all []string
		var chosen []packed
		for _, p := range found {
			name, ok := p.answersTo(opts.Ref)
			if ok {
				if name != "" {
					p.names = []string{name}
				}
				chosen = append(chosen, p)
			}
			all = append(all, p.names...)
			if len(p.names) == 0 && p.tag != "" {
				all = append(all, p.tag)
			}
		}
		if len(chosen) == 0 {
			return nil, &Error{Message: fmt.Sprintf("it holds no image %q", opts.Ref), Remedy: "it holds: " + cut(strings.Join(all, ", "), maxSaid)}
		}
		found = chosen[:1]
	}
	if opts.Name == "" {
		return found, nil
	}
	ref, err := ParseReference(opts.Name)
	if err != nil {
		return nil, err
	}
	if ref.digest != "" {
		return nil, &Error{Message: fmt.Sprintf("name %q must not have a digest", opts.Name)}
	}
	if len(found) != 1 {
		return nil, &Error{Message: fmt.Sprintf("it holds %d images, and one name was given", len(found)), Remedy: "choose one with --ref"}
	}
	found[0].names = []string{ref.String()}
	return found, nil
}

// answersTo tells whether an image is the one asked for, and by which of its names.
func (p packed) answersTo(want string) (name string, ok bool) {
	if ref, err := ParseReference(want); err == nil && slices.Contains(p.names, ref.String()) {
		return ref.String(), true
	}
	return "", p.tag != "" && p.tag == want || p.id != "" && p.id.String() == want
}
