package image

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// kind is what a manifest's media type says it is.
type kind int

const (
	otherKind kind = iota
	imageKind
	indexKind
)

// kindOf tells an image from an index. Registries and archives leave the media type out at times: then what the
// document holds decides.
func kindOf(mediaType string, raw []byte) (kind, error) {
	var m struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return otherKind, fmt.Errorf("reading manifest: %w", err)
	}
	if strings.HasPrefix(mediaType, dockerSchema1) || m.SchemaVersion == 1 || m.FSLayers != nil {
		return otherKind, &Error{Message: "the image is in Docker's schema 1, which is no longer in use", Remedy: "ask its maker to push it again with a current tool"}
	}
	if m.Manifests != nil && (m.Config != nil || m.Layers != nil) && wall.Up("one meaning") {
		// Two readers could take it for two images (CVE-2021-41190).
		return otherKind, &Error{Message: "the image's manifest is an index as well"}
	}
	for _, t := range []string{m.MediaType, mediaType} {
		switch t {
		case ocispec.MediaTypeImageIndex, dockerIndex:
			return indexKind, nil
		case ocispec.MediaTypeImageManifest, dockerManifest:
			return imageKind, nil
		}
	}
	switch {
	case m.Manifests != nil:
		return indexKind, nil
	case m.Config != nil:
		return imageKind, nil
	}
	return otherKind, &Error{Message: fmt.Sprintf("media type %q is not that of an image", brief(mediaType))}
}

// parseIndex reads the manifests of an index.
func parseIndex(raw []byte) ([]ocispec.Descriptor, error) {
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("reading index: %w", err)
	}
	for _, d := range index.Manifests {
		if err := d.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("reading index: %q: %w", d.Digest, err)
		}
	}
	return index.Manifests, nil
}

// parseManifest reads an image's manifest: its config and, from the bottom, its layers.
func parseManifest(raw []byte) (config ocispec.Descriptor, layers []blob, err error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return config, nil, fmt.Errorf("reading manifest: %w", err)
	}
	switch t := m.Config.MediaType; {
	case t == "", t == ocispec.MediaTypeImageConfig, t == "application/vnd.docker.container.image.v1+json":
	default:
		return config, nil, &Error{Message: fmt.Sprintf("it is not a container image but %q", brief(t))}
	}
	if m.Config.Digest.Algorithm() != digest.SHA256 || m.Config.Digest.Validate() != nil {
		return config, nil, fmt.Errorf("reading manifest: config %q is no sha256 digest", m.Config.Digest)
	}
	if m.Config.Size > maxConfig {
		return config, nil, &Error{Message: fmt.Sprintf("the image's config is larger than %s", size(maxConfig))}
	}
	for _, l := range m.Layers {
		if err := l.Digest.Validate(); err != nil || l.Digest.Algorithm() != digest.SHA256 {
			return config, nil, fmt.Errorf("reading manifest: layer %q is no sha256 digest", l.Digest)
		}
		if l.Size < 0 {
			return config, nil, fmt.Errorf("reading manifest: layer %.19s has a negative size", l.Digest)
		}
		if strings.Contains(l.MediaType, "encrypted") {
			return config, nil, &Error{Message: "the image's layers are encrypted"}
		}
		layers = append(layers, blob{digest: l.Digest, size: l.Size})
	}
	return m.Config, layers, nil
}
