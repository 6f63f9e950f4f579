package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/storage"
)

// Policy says when a registry is asked.
type Policy string

// The policies of a pull. Empty is PullAlways.
const (
	PullAlways  Policy = "always"  // ask whether the image is still the same; fetch it if not
	PullMissing Policy = "missing" // ask only if the store has none of this name and platform
	PullNever   Policy = "never"   // never ask; a *NotFoundError if it is not here
)

// PullOptions says how to pull.
type PullOptions struct {
	// Platform is os/arch[/variant]; empty is this machine's.
	Platform string
	// TLSVerify false takes any certificate, and plain http; nil and true take neither. Registries on the loopback
	// device may speak plain http in any case, as Docker has it.
	TLSVerify *bool
	Policy    Policy
	Progress  Progress // may be nil
}

// Pull brings an image from its registry, unless the store has it as it is there now: then it asks one question and
// moves no blob. Layers that are here already are not fetched. The name moves to the new image; the old one keeps its
// other names, or has none. Of a reference with tag and digest, the digest counts.
//
// Credentials come from the files of docker login and podman login. Manifests of more than 4 MiB and configs of more
// than 8 MiB are refused. What the user can act on is an *Error. When ctx ends, nothing half done can be seen in the
// store, and layers that were finished are used by the next pull.
func (s *Store) Pull(ctx context.Context, ref Reference, opts PullOptions) (_ *Image, err error) {
	defer s.catch(&err)
	if err := s.check(); err != nil {
		return nil, err
	}
	want, err := parsePlatform(opts.Platform)
	if err != nil {
		return nil, err
	}
	here, err := s.named(ref.stored())
	if err != nil {
		return nil, err
	}
	if here != nil && !s.isFor(here, want) {
		here = nil
	}
	switch opts.Policy {
	case PullNever, PullMissing:
		if here != nil {
			return s.describe(here)
		}
		if opts.Policy == PullNever {
			return nil, &NotFoundError{Name: ref.Familiar()}
		}
	case PullAlways, "":
	default:
		return nil, fmt.Errorf("pull policy %q is not always, missing or never", opts.Policy)
	}
	img, err := s.pull(ctx, ref, want, opts)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return img, registryError(ref, err)
}

func (s *Store) pull(ctx context.Context, ref Reference, want ocispec.Platform, opts PullOptions) (*Image, error) {
	which := ref.digest
	if which != "" { // what a digest names never changes
		if img, err := s.known(ref, which, want); img != nil || err != nil {
			return img, err
		}
	}
	r, err := connect(ctx, ref, opts.TLSVerify != nil && !*opts.TLSVerify, s.dial)
	if err != nil {
		return nil, err
	}
	if s.pace.window != 0 {
		r.pace = s.pace
	}
	if which == "" {
		d, err := r.resolve(ctx, ref.tag)
		if err != nil {
			return nil, err
		}
		if d != "" {
			if img, err := s.known(ref, d, want); img != nil || err != nil {
				return img, err
			}
		}
	}
	b, err := r.bundle(ctx, ref, want)
	if err != nil {
		return nil, err
	}
	return s.ingest(ctx, b, []string{ref.stored()}, opts.Progress)
}

// known finds an image that is here already by the digest of its manifest or index, and gives it the name; nil when
// it is not here.
func (s *Store) known(ref Reference, d digest.Digest, want ocispec.Platform) (*Image, error) {
	images, err := s.store.ImagesByDigest(d)
	if err != nil {
		return nil, storeError(s.opts.GraphRoot, "reading", err)
	}
	i := slices.IndexFunc(images, func(img *storage.Image) bool { return s.isFor(img, want) })
	if i < 0 {
		return nil, nil
	}
	img, err := s.describe(images[i])
	if errors.Is(err, errIncomplete) {
		return nil, nil
	}
	if err != nil || slices.Contains(img.Names, ref.stored()) {
		return img, err
	}
	if err := s.store.AddNames(img.ID, []string{ref.stored()}); err != nil {
		return nil, storeError(s.opts.GraphRoot, "writing", err)
	}
	img.Names = slices.Sorted(slices.Values(append(img.Names, ref.stored())))
	return img, nil
}

// bundle fetches all of an image but its layers.
func (r *registry) bundle(ctx context.Context, ref Reference, want ocispec.Platform) (*bundle, error) {
	which := ref.tag
	if ref.digest != "" {
		which = ref.digest.String()
	}
	raw, mediaType, err := r.manifest(ctx, which)
	if err != nil {
		return nil, err
	}
	return bundleFrom(raw, mediaType, want, reader{
		manifest: func(d ocispec.Descriptor) ([]byte, error) {
			raw, _, err := r.manifest(ctx, d.Digest.String())
			return raw, err
		},
		config: func(d ocispec.Descriptor) ([]byte, error) { return r.config(ctx, d) },
		layer:  r.blob,
	})
}

// reader fetches what a manifest names, checked but for the layers.
type reader struct {
	manifest func(ocispec.Descriptor) ([]byte, error)
	config   func(ocispec.Descriptor) ([]byte, error)
	layer    func(context.Context, digest.Digest) (io.ReadCloser, error)
}

// maxNesting is how many indexes may name each other: the specification has one.
const maxNesting = 3

// bundleFrom follows a manifest, or an index to the manifest for a platform.
func bundleFrom(raw []byte, mediaType string, want ocispec.Platform, r reader) (*bundle, error) {
	b := &bundle{}
	for range maxNesting {
		k, err := kindOf(mediaType, raw)
		if err != nil {
			return nil, err
		}
		if k == imageKind {
			b.manifest = raw
			break
		}
		index, err := parseIndex(raw)
		if err != nil {
			return nil, err
		}
		d, err := choose(index, want)
		if err != nil {
			return nil, err
		}
		if b.index == nil {
			b.index = raw
		}
		if raw, err = r.manifest(d); err != nil {
			return nil, err
		}
		mediaType = d.MediaType
	}
	if b.manifest == nil {
		return nil, &Error{Message: "the image's indexes name each other without end"}
	}
	config, layers, err := parseManifest(b.manifest)
	if err != nil {
		return nil, err
	}
	if b.config, err = r.config(config); err != nil {
		return nil, err
	}
	if err := pairLayers(layers, b.config); err != nil {
		return nil, err
	}
	b.layers = layers
	b.openLayer = func(ctx context.Context, i int) (io.ReadCloser, error) { return r.layer(ctx, layers[i].digest) }
	return b, nil
}
