package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Formats that Save writes.
const (
	DockerArchive = "docker-archive" // as docker save did until version 24; layers as plain tar streams
	OCIArchive    = "oci-archive"    // an OCI layout in a tar archive; layers packed by gzip
	OCIDir        = "oci-dir"        // an OCI layout folder
)

// Save writes images to a new file or folder. What a person names twice is written once, with both names. Layers have
// the diff ids they came with. A path that is there already, an image that is not and a format that is unknown are
// errors; of a save that fails nothing is left.
func (s *Store) Save(ctx context.Context, path, format string, names []string) (err error) {
	defer s.catch(&err)
	if err := s.check(); err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return &Error{Message: fmt.Sprintf("saving to %q: it exists", path), Remedy: "remove it first, or choose another name"}
	}
	images, err := s.toSave(ctx, names)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".whisk-save-")
	if err != nil {
		return fmt.Errorf("saving to %q: %w", path, err)
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "out")
	switch format {
	case OCIDir:
		err = os.Mkdir(out, 0o755)
		if err == nil {
			err = s.writeLayout(ctx, &dirSink{dir: out, tmp: tmp}, images)
		}
	case OCIArchive, DockerArchive:
		write := s.writeLayout
		if format == DockerArchive {
			write = s.writeDocker
		}
		var f *os.File
		if f, err = os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644); err == nil {
			sink := &tarSink{w: tar.NewWriter(f), tmp: tmp, seen: map[string]bool{}}
			err = write(ctx, sink, images)
			err = errors.Join(err, sink.w.Close(), f.Close())
		}
	default:
		return &Error{Message: fmt.Sprintf("there is no image format %q", format), Remedy: "choose docker-archive, oci-archive or oci-dir"}
	}
	if err == nil {
		err = os.Rename(out, path)
	}
	if err != nil {
		return fmt.Errorf("saving to %q: %w", path, err)
	}
	return nil
}

// saved is an image on its way out.
type saved struct {
	img    *Image
	names  []string // those it was asked for by
	config []byte
	layers []storedLayer
}

// toSave finds the images.
func (s *Store) toSave(ctx context.Context, names []string) ([]*saved, error) {
	var out []*saved
	for _, name := range names {
		img, err := s.Lookup(ctx, name)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(out, func(o *saved) bool { return o.img.ID == img.ID })
		if i < 0 {
			item := &saved{img: img}
			if item.config, item.layers, err = s.contents(img.ID); err != nil {
				return nil, err
			}
			i, out = len(out), append(out, item)
		}
		if ref, err := ParseReference(name); err == nil && slices.Contains(img.Names, ref.stored()) && !slices.Contains(out[i].names, ref.stored()) {
			out[i].names = append(out[i].names, ref.stored())
		}
	}
	return out, nil
}

// sink is where the files of a format go.
type sink interface {
	// put writes a file whose size is known; a name that is there already is left alone.
	put(name string, size int64, r io.Reader) error
	scratch() string // a folder for what must be written before its name is known
	// take moves a file of the scratch folder into place.
	take(name string, f *os.File) error
}

type dirSink struct{ dir, tmp string }

func (d *dirSink) scratch() string { return d.tmp }

func (d *dirSink) put(name string, _ int64, r io.Reader) error {
	path := filepath.Join(d.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

func (d *dirSink) take(name string, f *os.File) error {
	path := filepath.Join(d.dir, filepath.FromSlash(name))
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), f.Chmod(0o644)); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

type tarSink struct {
	w    *tar.Writer
	tmp  string
	seen map[string]bool
}

func (t *tarSink) scratch() string { return t.tmp }

func (t *tarSink) put(name string, size int64, r io.Reader) error {
	if t.seen[name] {
		return nil
	}
	t.seen[name] = true
	if err := t.folder(path.Dir(name)); err != nil {
		return err
	}
	if err := t.header(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	_, err := io.Copy(t.w, r)
	return err
}

// folder writes the entries of a folder and those above it. Tools that unpack the archive as an ordinary user make
// folders without an entry root's, and fail where they may not (containers/storage, as skopeo 1.9 has it).
func (t *tarSink) folder(name string) error {
	if name == "." || t.seen[name+"/"] {
		return nil
	}
	t.seen[name+"/"] = true
	if err := t.folder(path.Dir(name)); err != nil {
		return err
	}
	return t.header(&tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755})
}

// header writes one entry's header, owned by the user as the host knows him: the same tools give owners away.
func (t *tarSink) header(h *tar.Header) error {
	h.Uid, h.Gid, h.ModTime = hostID("/proc/self/uid_map"), hostID("/proc/self/gid_map"), time.Unix(0, 0)
	return t.w.WriteHeader(h)
}

// hostID is what id 0 of this user namespace is outside, user_namespaces(7); 0 if that cannot be told.
func hostID(file string) int {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var inside, outside, size int
		if n, _ := fmt.Sscan(line, &inside, &outside, &size); n == 3 && inside == 0 {
			return outside
		}
	}
	return 0
}

func (t *tarSink) take(name string, f *os.File) error {
	n, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err == nil {
		err = t.put(name, n, f)
	}
	return errors.Join(err, os.Remove(f.Name()))
}

// writeDocker writes what docker load, podman load and skopeo read as docker-archive.
func (s *Store) writeDocker(ctx context.Context, out sink, images []*saved) error {
	type item struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var list []item
	written := map[string]bool{} // images share layers
	for _, img := range images {
		it := item{Config: img.img.ID + ".json", RepoTags: []string{}, Layers: []string{}}
		for _, n := range img.names {
			if isTag(n) { // the format has no place for digests
				it.RepoTags = append(it.RepoTags, n)
			}
		}
		if err := putBytes(out, it.Config, img.config); err != nil {
			return err
		}
		for _, l := range img.layers {
			name := l.diffID.Encoded() + ".tar"
			it.Layers = append(it.Layers, name)
			if written[name] {
				continue
			}
			written[name] = true
			if err := s.layerStream(ctx, l, func(r io.Reader) error { return out.put(name, l.size, r) }); err != nil {
				return err
			}
		}
		list = append(list, it)
	}
	raw, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return putBytes(out, "manifest.json", raw)
}

// writeLayout writes an OCI layout.
func (s *Store) writeLayout(ctx context.Context, out sink, images []*saved) error {
	layout := ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}
	if err := putJSON(out, ocispec.ImageLayoutFile, layout); err != nil {
		return err
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	packed := map[digest.Digest]ocispec.Descriptor{} // by diff id: images share layers
	for _, img := range images {
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
		m.SchemaVersion = 2
		for _, l := range img.layers {
			d, ok := packed[l.diffID]
			if !ok {
				var err error
				if d, err = s.packLayer(ctx, out, l); err != nil {
					return err
				}
				packed[l.diffID] = d
			}
			m.Layers = append(m.Layers, d)
		}
		var err error
		if m.Config, err = putBlob(out, ocispec.MediaTypeImageConfig, img.config); err != nil {
			return err
		}
		raw, err := json.Marshal(m)
		if err != nil {
			return err
		}
		d, err := putBlob(out, ocispec.MediaTypeImageManifest, raw)
		if err != nil {
			return err
		}
		if p, err := parsePlatform(img.img.Platform); err == nil {
			d.Platform = &p
		}
		if len(img.names) == 0 {
			index.Manifests = append(index.Manifests, d)
		}
		for _, n := range img.names {
			named := d
			named.Annotations = map[string]string{ocispec.AnnotationRefName: n, containerdName: n}
			index.Manifests = append(index.Manifests, named)
		}
	}
	return putJSON(out, ocispec.ImageIndexFile, index)
}

func putBlob(out sink, mediaType string, raw []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	return d, putBytes(out, blobPath(d.Digest), raw)
}

func putJSON(out sink, name string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return putBytes(out, name, raw)
}
