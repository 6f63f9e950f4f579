package image

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/whisk-sandbox/whisk/internal/wall"
)

// Media types of Docker's own formats, which registries serve beside those of the OCI.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerSchema1  = "application/vnd.docker.distribution.manifest.v1" // +json or +prettyjws
)

const (
	dialTimeout = 10 * time.Second
	// answerTimeout is how long a registry may think before its first byte: some fetch from another one first.
	answerTimeout = 60 * time.Second
	// stallTimeout ends a transfer in which nothing moves: a laptop that was asleep has such connections.
	stallTimeout = 60 * time.Second
	// attempts of a request that fails for a reason that may pass.
	attempts = 3
)

// registry is one repository of a registry, as this user sees it.
type registry struct {
	ref    Reference
	client *http.Client
	base   string // URL of the repository, without a slash at its end
	pace   pace   // of each answer
}

// errPlainHTTP is a registry that answers without TLS and is not on the loopback device.
var errPlainHTTP = errors.New("it answers plain http only")

// connect greets a registry and finds out how to prove who the user is.
func connect(ctx context.Context, ref Reference, insecure bool, dial dialFunc) (*registry, error) {
	var options []name.Option
	if insecure {
		options = append(options, name.Insecure)
	}
	host := ref.domain
	if host == defaultDomain {
		host = legacyDomain
	}
	repo, err := name.NewRepository(host+"/"+ref.path, options...)
	if err != nil {
		return nil, fmt.Errorf("pulling %q: %w", ref.Familiar(), err)
	}
	auth, err := credentials(ref, authFiles(os.Getenv))
	if err != nil {
		return nil, err
	}
	inner := isInner(ref.domain)
	web := &wire{insecure: insecure, inner: inner, next: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           guardedDial(ref.domain, http.ProxyFromEnvironment, dial),
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: answerTimeout,
		MaxIdleConnsPerHost:   parallelLayers,
		IdleConnTimeout:       answerTimeout,
		ReadBufferSize:        64 << 10,
		DisableCompression:    true,                                      // blobs are packed already, and digests are of what is sent
		TLSClientConfig:       &tls.Config{InsecureSkipVerify: insecure}, //nolint:gosec // --tls-verify=false asks for it
	}}
	rt, err := transport.NewWithContext(ctx, repo.Registry, auth, transport.NewUserAgent(web, "whisk"), []string{repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, err
	}
	return &registry{
		ref:    ref,
		client: &http.Client{Transport: rt, CheckRedirect: follow},
		pace:   defaultPace(),
		base:   "https://" + repo.RegistryStr() + "/v2/" + repo.RepositoryStr(),
	}, nil
}

// wire sends nothing in the clear but to the loopback device, wherever a redirect or a realm leads, unless the user
// allows it; and nothing to this machine's own services unless the registry is one.
type wire struct {
	insecure bool
	inner    bool // the registry is this machine's own
	next     *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !w.insecure && !isLoopback(r.URL.Host) && wall.Up("registry redirects") {
		if r.Response != nil {
			return nil, &plainError{r.URL.Host}
		}
		return nil, errPlainHTTP
	}
	if !w.inner && isInner(r.URL.Host) && wall.Up("registry redirects") {
		return nil, &innerError{r.URL.Host}
	}
	resp, err := w.next.RoundTrip(r)
	if err == nil && (resp.StatusCode >= http.StatusMultipleChoices || r.URL.Path == "/v2/") {
		// What nobody looks at is read to its end all the same, to use the connection again.
		resp.Body = short{io.LimitReader(resp.Body, maxRefusal), resp.Body}
	}
	return resp, err
}

// maxRefusal is how much of an answer without an image in it is read.
const maxRefusal = 1 << 20

type short struct {
	io.Reader
	io.Closer
}

// send makes a request, again if what failed may pass. The caller closes the body of an answer of 2xx; all others are
// errors.
func (r *registry) send(ctx context.Context, method, path string, header http.Header) (*http.Response, error) {
	var err error
	for try := range attempts {
		if try > 0 {
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(time.Duration(try) * 500 * time.Millisecond):
			}
		}
		var req *http.Request
		if req, err = http.NewRequestWithContext(ctx, method, r.base+path, nil); err != nil {
			return nil, err
		}
		for k, v := range header {
			req.Header[k] = v
		}
		var resp *http.Response
		resp, err = r.client.Do(req)
		if err != nil {
			if !passing(err) {
				return nil, err
			}
			continue
		}
		if err = transport.CheckError(resp, http.StatusOK, http.StatusPartialContent); err == nil {
			return resp, nil
		}
		resp.Body.Close()
		if resp.StatusCode < http.StatusInternalServerError {
			return nil, err
		}
	}
	return nil, err
}

func accept() http.Header {
	return http.Header{"Accept": {strings.Join([]string{ocispec.MediaTypeImageIndex, dockerIndex, ocispec.MediaTypeImageManifest, dockerManifest}, ", ")}}
}

// resolve asks what a tag stands for now, without fetching it. An empty digest means that the registry does not say.
func (r *registry) resolve(ctx context.Context, tag string) (digest.Digest, error) {
	resp, err := r.send(ctx, http.MethodHead, "/manifests/"+tag, accept())
	if err != nil {
		if e, ok := errors.AsType[*transport.Error](err); ok && e.StatusCode != http.StatusUnauthorized && e.StatusCode != http.StatusTooManyRequests {
			return "", nil // some know no HEAD, and an error has its text in the answer to GET
		}
		return "", err
	}
	resp.Body.Close()
	d := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if d.Validate() != nil {
		return "", nil
	}
	return d, nil
}

// manifest fetches a manifest or index by tag or digest; one by digest is what it says it is.
func (r *registry) manifest(ctx context.Context, which string) (raw []byte, mediaType string, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := r.send(ctx, http.MethodGet, "/manifests/"+which, accept())
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	raw, err = readBounded(r.paced(ctx, cancel, resp.Body), maxManifest, "manifest")
	if err != nil {
		return nil, "", err
	}
	if want := digest.Digest(which); want.Validate() == nil {
		if got := want.Algorithm().FromBytes(raw); got != want {
			return nil, "", &Error{Message: fmt.Sprintf("registry %s sent a manifest of the wrong digest: %s instead of %s", r.ref.domain, got, want)}
		}
	}
	mediaType, _, _ = strings.Cut(resp.Header.Get("Content-Type"), ";")
	return raw, strings.TrimSpace(mediaType), nil
}

// config fetches an image's config.
func (r *registry) config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := r.send(ctx, http.MethodGet, "/blobs/"+d.Digest.String(), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := readBounded(r.paced(ctx, cancel, resp.Body), maxConfig, "config")
	if err != nil {
		return nil, err
	}
	return raw, checkConfig(raw, d.Digest)
}

// blob opens a layer. Reads carry on where a connection broke; bytes are not verified.
func (r *registry) blob(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	b := &blobReader{registry: r, ctx: ctx, cancel: cancel, path: "/blobs/" + d.String(), left: attempts, pace: r.pace}
	if err := b.open(); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// paced reads an answer that must keep the registry's pace.
func (r *registry) paced(ctx context.Context, cancel context.CancelCauseFunc, body io.Reader) io.Reader {
	return &pacedReader{ctx: ctx, cancel: cancel, body: body, pace: r.pace}
}

type pacedReader struct {
	ctx    context.Context //nolint:containedctx // as in blobReader
	cancel context.CancelCauseFunc
	body   io.Reader
	pace   pace
}

// Read implements io.Reader.
func (p *pacedReader) Read(b []byte) (int, error) {
	n, err := p.pace.read(p.cancel, p.body, b)
	if err != nil && err != io.EOF && p.ctx.Err() != nil {
		err = context.Cause(p.ctx)
	}
	return n, err
}

type blobReader struct {
	registry *registry
	ctx      context.Context //nolint:containedctx // a reader's reads belong to the call that opened it
	cancel   context.CancelCauseFunc
	pace     pace
	path     string
	body     io.ReadCloser
	n        int64 // read so far
	left     int   // how often the connection may still break
}

// open asks for the rest of the blob.
func (b *blobReader) open() error {
	header := http.Header{}
	if b.n > 0 {
		header.Set("Range", "bytes="+strconv.FormatInt(b.n, 10)+"-")
	}
	resp, err := b.registry.send(b.ctx, http.MethodGet, b.path, header)
	if e, ok := errors.AsType[*transport.Error](err); ok && e.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		resp, err = b.registry.send(b.ctx, http.MethodGet, b.path, nil)
	}
	if err != nil {
		return err
	}
	b.body = resp.Body
	if b.n > 0 && resp.StatusCode != http.StatusPartialContent {
		// The registry knows no ranges.
		if _, err := io.CopyN(io.Discard, resp.Body, b.n); err != nil {
			return err
		}
	}
	return nil
}

// Read implements io.Reader.
func (b *blobReader) Read(p []byte) (int, error) {
	for {
		n, err := b.pace.read(b.cancel, b.body, p)
		b.n += int64(n)
		if b.ctx.Err() != nil && err != nil && err != io.EOF {
			return n, context.Cause(b.ctx)
		}
		if err == nil || err == io.EOF || n > 0 {
			if n > 0 && err != io.EOF {
				err = nil // said again by the next read
			}
			return n, err
		}
		if b.ctx.Err() != nil {
			return 0, context.Cause(b.ctx)
		}
		if b.left--; b.left <= 0 || !passing(err) {
			return 0, err
		}
		b.body.Close()
		if again := b.open(); again != nil {
			return 0, errors.Join(err, again)
		}
	}
}

// Close implements io.Closer. It may be called while a Read waits, which then ends.
func (b *blobReader) Close() error {
	b.cancel(context.Canceled)
	if b.body != nil {
		return b.body.Close()
	}
	return nil
}

func readBounded(r io.Reader, bound int64, what string) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, bound+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > bound {
		return nil, &Error{Message: fmt.Sprintf("the image's %s is larger than %s", what, size(bound))}
	}
	return raw, nil
}

func checkConfig(raw []byte, want digest.Digest) error {
	if err := want.Validate(); err != nil {
		return &Error{Message: fmt.Sprintf("the image's manifest names a config %q, which is no digest", want)}
	}
	if got := want.Algorithm().FromBytes(raw); got != want {
		return &Error{Message: fmt.Sprintf("the image's config has the wrong digest: %s instead of %s", got, want)}
	}
	return nil
}
