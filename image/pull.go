package image

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// PullOptions say how to pull.
type PullOptions struct {
	// Platform is os/arch[/variant]; empty: this machine's.
	Platform string
	// TLSVerify false takes any certificate, and plain http; nil and true do not. Registries on the loopback
	// device may speak plain http in any case, as Docker has it.
	TLSVerify *bool
	Progress  Progress
}

// Pull brings an image from its registry, unless the store has it as it is there now. Credentials come from the
// files of docker login and podman login.
func (s *Store) Pull(ctx context.Context, ref Reference, o PullOptions) (*Image, error) {
	insecure := o.TLSVerify != nil && !*o.TLSVerify
	options := []name.Option{name.WeakValidation}
	if insecure || loopback(ref.domain) {
		options = append(options, name.Insecure)
	}
	where := ref.domain + "/" + ref.path
	full := where + ":" + ref.tag
	if ref.digest != "" {
		full = where + "@" + ref.digest.String()
	}
	target, err := name.ParseReference(full, options...)
	if err != nil {
		return nil, &ReferenceError{ref.String(), err.Error()}
	}
	platform, err := parsePlatform(o.Platform)
	if err != nil {
		return nil, err
	}
	web := &wire{ref: ref, insecure: insecure, next: baseTransport(insecure)}
	remoteOptions := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithTransport(web), remote.WithPlatform(*platform), remote.WithUserAgent("whisk")}

	// What is here already is asked for by its digest alone.
	if old, err := s.s.Image(ref.withoutDigest().String()); err == nil || ref.digest != "" {
		head := ref.digest
		if head == "" {
			d, err := remote.Head(target, remoteOptions...)
			if err != nil {
				return nil, registryError(ref, err)
			}
			head = digest.Digest(d.Digest.String())
		}
		if old == nil {
			if same, err := s.s.ImagesByDigest(head); err == nil && len(same) > 0 {
				old = same[0]
			}
		}
		if old != nil && slices.Contains(old.Digests, head) {
			if img, err := s.describe(old); err == nil && (o.Platform == "" || samePlatform(img.Platform, platform)) {
				if err := s.s.AddNames(old.ID, s.namesFor(ref)); err != nil {
					return nil, storeError("naming image "+short(old.ID), s.root, err)
				}
				return s.describe(old)
			}
		}
	}
	desc, err := remote.Get(target, remoteOptions...)
	if err != nil {
		return nil, registryError(ref, err)
	}
	src := source{names: s.namesFor(ref)}
	switch {
	case desc.MediaType == types.DockerManifestSchema1 || desc.MediaType == types.DockerManifestSchema1Signed:
		return nil, &Error{Message: fmt.Sprintf("image %q is in Docker's schema 1, which nobody should use any more", ref.Familiar()), Remedy: "ask its maker to push it again with a current tool"}
	case desc.MediaType.IsIndex():
		index, err := desc.ImageIndex()
		if err != nil {
			return nil, registryError(ref, err)
		}
		if src.image, err = choose(index, platform, ref.Familiar()); err != nil {
			return nil, registryError(ref, err)
		}
		src.index = desc.Manifest
	default:
		if src.image, err = desc.Image(); err != nil {
			return nil, registryError(ref, err)
		}
	}
	img, err := s.add(ctx, src, o.Progress)
	if err != nil {
		return nil, registryError(ref, err)
	}
	return img, nil
}

// namesFor are the names that a pulled image gets: one asked for by digest has none of its own.
func (s *Store) namesFor(ref Reference) []string {
	if ref.tag == "" {
		return []string{ref.String()}
	}
	return []string{ref.withoutDigest().String()}
}

// choose takes the image for a platform out of an index.
func choose(index v1.ImageIndex, want *v1.Platform, what string) (v1.Image, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var offered []string
	for _, d := range m.Manifests {
		if !d.MediaType.IsImage() {
			continue
		}
		if d.Platform == nil {
			if len(m.Manifests) == 1 {
				return index.Image(d.Digest)
			}
			continue
		}
		if d.Platform.Satisfies(*want) {
			return index.Image(d.Digest)
		}
		if d.Platform.OS != "unknown" { // attestations
			offered = append(offered, d.Platform.String())
		}
	}
	return nil, &Error{Message: fmt.Sprintf("image %q is not made for %s; it is for %s", what, want, strings.Join(offered, ", ")), Remedy: "choose one: --platform " + strings.Join(offered[:min(1, len(offered))], "")}
}

func parsePlatform(s string) (*v1.Platform, error) {
	if s == "" {
		return &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, nil
	}
	parts := strings.Split(s, "/")
	if len(parts) == 1 {
		parts = []string{"linux", parts[0]}
	}
	p, err := v1.ParsePlatform(strings.Join(parts, "/"))
	if err != nil || p.OS == "" || p.Architecture == "" {
		return nil, &Error{Message: fmt.Sprintf("platform %q is not os/arch[/variant]", s), Remedy: "for example --platform linux/arm64"}
	}
	return p, nil
}

func samePlatform(have string, want *v1.Platform) bool {
	p, err := v1.ParsePlatform(have)
	return err == nil && p.OS == want.OS && p.Architecture == want.Architecture && (want.Variant == "" || p.Variant == want.Variant)
}

// loopback says whether a registry is on this machine's loopback device.
func loopback(domain string) bool {
	host := domain
	if h, _, err := net.SplitHostPort(domain); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

func baseTransport(insecure bool) http.RoundTripper {
	t, ok := remote.DefaultTransport.(*http.Transport)
	if !ok {
		return remote.DefaultTransport
	}
	t = t.Clone()
	if insecure {
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // --tls-verify=false asks for it
	}
	return t
}

// wire sends nothing in the clear but to the loopback device, wherever a redirect leads, unless the user allows it.
type wire struct {
	ref      Reference
	insecure bool
	next     http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !w.insecure && !loopback(r.URL.Host) {
		return nil, &Error{Message: fmt.Sprintf("registry %s wants plain %s from %s", w.ref.domain, r.URL.Scheme, r.URL.Host), Remedy: "if you trust the network: --tls-verify=false"}
	}
	return w.next.RoundTrip(r)
}

// registryError turns what a registry or the way to it says into one line.
func registryError(ref Reference, err error) error {
	var told *Error
	if errors.As(err, &told) {
		return told
	}
	what := ref.Familiar()
	var status *transport.Error
	var dns *net.DNSError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &status):
		switch status.StatusCode {
		case http.StatusNotFound:
			return &Error{Message: fmt.Sprintf("no image %q at %s", what, ref.domain), Remedy: "check the spelling of name and tag", Err: err}
		case http.StatusUnauthorized, http.StatusForbidden:
			return &Error{Message: fmt.Sprintf("%s does not let you pull %q", ref.domain, what), Remedy: fmt.Sprintf("check the name; if it is private, log in: podman login %s, or docker login %s", ref.domain, ref.domain), Err: err}
		case http.StatusTooManyRequests:
			return &Error{Message: fmt.Sprintf("%s says: too many requests", ref.domain), Remedy: "wait, or log in for a higher limit", Err: err}
		}
		return &Error{Message: fmt.Sprintf("pulling %q: %s answered %d %s", what, ref.domain, status.StatusCode, http.StatusText(status.StatusCode)), Err: err}
	case errors.Is(err, unix.ECONNREFUSED):
		return &Error{Message: fmt.Sprintf("pulling %q: nothing listens at %s (connection refused)", what, ref.domain), Remedy: "check the registry's address, and that it runs", Err: err}
	case errors.As(err, &dns):
		return &Error{Message: fmt.Sprintf("pulling %q: cannot find %s: %s", what, dns.Name, dns.Err), Remedy: "check the registry's name and your network", Err: err}
	case strings.Contains(err.Error(), "unexpected EOF"), strings.Contains(err.Error(), "connection reset"):
		return &Error{Message: fmt.Sprintf("pulling %q: %s cut the connection off half way", what, ref.domain), Remedy: "try again", Err: err}
	}
	return fmt.Errorf("pulling %q: %w", what, err)
}
