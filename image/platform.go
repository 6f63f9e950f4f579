package image

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// hostPlatform is what this machine runs.
func hostPlatform() ocispec.Platform {
	return normalPlatform(ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH})
}

// parsePlatform reads os/arch[/variant], or an architecture alone; empty is this machine's.
func parsePlatform(s string) (ocispec.Platform, error) {
	if s == "" {
		return hostPlatform(), nil
	}
	parts := strings.Split(s, "/")
	if len(parts) == 1 {
		parts = []string{"linux", s}
	}
	for _, p := range parts {
		if p == "" || len(parts) > 3 {
			return ocispec.Platform{}, fmt.Errorf("platform %q is not of the form linux/amd64 or linux/arm/v7", s)
		}
	}
	p := ocispec.Platform{OS: strings.ToLower(parts[0]), Architecture: strings.ToLower(parts[1])}
	if len(parts) == 3 {
		p.Variant = strings.ToLower(parts[2])
	}
	return normalPlatform(p), nil
}

// normalPlatform gives an architecture its one name: people write x86_64 and aarch64, and registries leave out v8.
func normalPlatform(p ocispec.Platform) ocispec.Platform {
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "i386", "i686", "x86":
		p.Architecture = "386"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	switch {
	case p.Architecture == "arm64" && p.Variant == "v8", p.Architecture == "amd64" && p.Variant == "v1":
		p.Variant = ""
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7" // what nearly all 32-bit machines are, and what Docker assumes
	}
	return p
}

// matches tells whether an image for the platform offered runs where the one wanted is.
func matches(want, offered ocispec.Platform) bool {
	want, offered = normalPlatform(want), normalPlatform(offered)
	return want.OS == offered.OS && want.Architecture == offered.Architecture && (want.Variant == offered.Variant || offered.Variant == "")
}

// RunsOn tells whether an image is what a platform, written as PullOptions.Platform is, asks for. Empty asks for none.
func (i *Image) RunsOn(platform string) (bool, error) {
	if platform == "" {
		return true, nil
	}
	want, err := parsePlatform(platform)
	if err != nil {
		return false, err
	}
	offered, err := parsePlatform(i.Platform)
	return err == nil && matches(want, offered), nil // a config that names no platform is for none
}

// choose picks the manifest of an index for a platform: an exact match, else one that does not say its variant.
func choose(index []ocispec.Descriptor, want ocispec.Platform) (ocispec.Descriptor, error) {
	var fallback *ocispec.Descriptor
	var offers []string
	for i, d := range index {
		if d.Platform == nil {
			if len(index) == 1 {
				return d, nil // an index that says nothing and has one image: that one
			}
			continue
		}
		p := normalPlatform(*d.Platform)
		switch {
		case p.OS == want.OS && p.Architecture == want.Architecture && p.Variant == want.Variant:
			return d, nil
		case matches(want, p) && fallback == nil:
			fallback = &index[i]
		}
		if p.OS != "unknown" { // attestations, which are no images
			offers = append(offers, showPlatform(p))
		}
	}
	if fallback != nil {
		return *fallback, nil
	}
	if len(offers) == 0 {
		return ocispec.Descriptor{}, errors.New("the index lists no image")
	}
	return ocispec.Descriptor{}, fmt.Errorf("there is no image for %s; there is one for %s", showPlatform(want), strings.Join(offers, ", "))
}

func showPlatform(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}
