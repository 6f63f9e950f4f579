package image

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// hostile is a registry that is called registry.example, a second host, other.example, and a service of this machine
// that nobody elsewhere should make whisk ask.
type hostile struct {
	*testRegistry
	store   *Store
	service *httptest.Server
	other   *httptest.Server
	asked   atomic.Int64 // requests to service
	mu      sync.Mutex
	leaked  []string     // Authorization headers that other was sent
	others  atomic.Int64 // requests to other
	sent    atomic.Int64 // blobs of image
}

func newHostile(t *testing.T) *hostile {
	t.Helper()
	h := &hostile{testRegistry: newRegistry(t), store: openStore(t)}
	h.service = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h.asked.Add(1)
		fmt.Fprint(w, `{"token":"t"}`)
	}))
	t.Cleanup(h.service.Close)
	h.other = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.others.Add(1)
		h.mu.Lock()
		defer h.mu.Unlock()
		if a := r.Header.Get("Authorization"); a != "" {
			h.leaked = append(h.leaked, a)
		}
	}))
	t.Cleanup(h.other.Close)
	hosts := map[string]string{"registry.example:80": h.host, "other.example:80": strings.TrimPrefix(h.other.URL, "http://")}
	h.store.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		to, ok := hosts[address]
		if host, _, _ := net.SplitHostPort(address); host == "169.254.169.254" || strings.HasSuffix(strings.ToLower(strings.TrimSuffix(host, ".")), "localhost") {
			// The cloud's service, and what resolvers take for loopback.
			to, ok = strings.TrimPrefix(h.service.URL, "http://"), true
		}
		if ok {
			return (&net.Dialer{}).DialContext(ctx, network, to)
		}
		if strings.HasSuffix(address, ".example:443") {
			return nil, errors.New("no TLS here")
		}
		return nil, nil
	}
	return h
}

// port is the service's.
func (h *hostile) port() string {
	_, p, _ := strings.Cut(strings.TrimPrefix(h.service.URL, "http://"), ":")
	return p
}

// pull asks the registry under its name, in plain http as the user allows.
func (h *hostile) pull(t *testing.T) error {
	t.Helper()
	verify := false
	_, err := h.store.Pull(t.Context(), mustRef(t, "registry.example/app:1"), PullOptions{TLSVerify: &verify})
	return err
}

// wallDown tells whether this is an image store without one of its walls: then the only question is whether the attack
// succeeds. See internal/attacks.
func wallDown() bool { return os.Getenv("WHISK_BREACH") != "" }

// refuses checks what every refusal is: one line with the registry's name, and nothing in the store.
func (h *hostile) refuses(t *testing.T, err error, want string) {
	t.Helper()
	if wallDown() {
		if err == nil {
			t.Error("it was pulled")
		}
		t.Log(err)
		return
	}
	oneLine(t, err)
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "registry.example") && !strings.Contains(err.Error(), h.host) {
		t.Errorf("error %v, want one that names the registry and %q", err, want)
	}
	clean(t, h.store)
}

func isBlob(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
}

func isManifest(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }

// TestAttackRegistryRedirect has a registry elsewhere that sends whisk to this machine's own services.
//
// Wall: registry redirects.
func TestAttackRegistryRedirect(t *testing.T) {
	for name, c := range map[string]struct{ to, want string }{
		"to loopback":                      {"http://127.0.0.1:%s/", "only this machine"},
		"to localhost":                     {"http://localhost:%s/", "only this machine"},
		"to localhost with a dot":          {"http://LocalHost.:%s/", "only this machine"},
		"to a name below localhost":        {"http://a.localhost:%s/", "only this machine"},
		"to the unspecified address":       {"http://0.0.0.0:%s/", "only this machine"},
		"to loopback in IPv6's dress":      {"http://[::ffff:127.0.0.1]:%s/", "only this machine"},
		"to the cloud's service":           {"http://169.254.169.254:%s/latest/meta-data/", "only this machine"},
		"to another host by another's way": {"http://user:password@127.0.0.1:%s/", "only this machine"},
	} {
		t.Run(name, func(t *testing.T) { redirects(t, c.to, c.want) })
	}
}

// TestAttackRegistryRedirectAway has a registry elsewhere that sends whisk to this machine's files, or round and round.
//
// Wall: redirect kinds.
func TestAttackRegistryRedirectAway(t *testing.T) {
	for name, c := range map[string]struct{ to, want string }{
		"to a file":                  {"file://%s", "\"file\""},
		"to another kind of address": {"gopher://other.example%s", "\"gopher\""},
		"in circles":                 {"http://registry.example/v2/app/blobs/%s", "circles"},
	} {
		t.Run(name, func(t *testing.T) {
			h, dir, hops := newHostile(t), t.TempDir(), 0
			h.push(t, "1", false, hostPlatform(), threeLayers(t)...)
			h.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if !isBlob(r) || r.Header.Get("X-Through") != "" {
					return false
				}
				h.mu.Lock()
				defer h.mu.Unlock()
				if hops++; hops > 200 {
					return false // of those who go round without end
				}
				// Whoever reads files finds there what it wants.
				file := filepath.Join(dir, filepath.Base(r.URL.Path))
				if _, err := os.Stat(file); err != nil {
					if err := os.WriteFile(file, h.through(t, r.URL.Path), 0o600); err != nil {
						t.Error(err)
					}
				}
				to := file
				if name == "in circles" {
					to = filepath.Base(r.URL.Path)
				}
				w.Header().Set("Location", fmt.Sprintf(c.to, to))
				w.WriteHeader(http.StatusTemporaryRedirect)
				return true
			})
			h.refuses(t, h.pull(t), c.want)
		})
	}
}

// through is what the registry itself has.
func (h *hostile) through(t *testing.T, path string) []byte {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+h.host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Through", "yes")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return b
}

// redirects pulls from a registry that answers every request for a blob with a redirect, which must be refused.
func redirects(t *testing.T, to, want string) {
	h := newHostile(t)
	h.push(t, "1", false, hostPlatform(), threeLayers(t)...)
	h.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if isBlob(r) {
			w.Header().Set("Location", fmt.Sprintf(to, h.port()))
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
		return isBlob(r)
	})
	h.refuses(t, h.pull(t), want)
	if h.asked.Load() != 0 {
		t.Error("the service was asked")
	}
}

// TestAttackRegistryRealm has a registry that wants the token fetched, with the user's password, from a service of this
// machine by its name.
//
// Wall: registry redirects.
func TestAttackRegistryRealm(t *testing.T) {
	t.Run("at localhost", func(t *testing.T) { wantsToken(t, "http://localhost:%s/token") })
}

// TestAttackRegistryRealmElsewhere has one that wants it fetched from where the registry library goes for no token, either.
//
// Wall: token realms.
func TestAttackRegistryRealmElsewhere(t *testing.T) {
	for name, realm := range map[string]string{
		"on loopback":               "http://127.0.0.1:%s/token",
		"at the unspecified host":   "http://0.0.0.0:%s/token",
		"a file":                    "file://" + tokenFile(t) + "?%s",
		"at the cloud's service":    "http://169.254.169.254/token?%s",
		"that redirects to its own": "http://registry.example/hop?%s",
	} {
		t.Run(name, func(t *testing.T) { wantsToken(t, realm) })
	}
}

func TestRealmThatIsNoURL(t *testing.T) { wantsToken(t, "http://[%s") }

// tokenFile is a file that would do for a token service's answer.
func tokenFile(t *testing.T) string {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(`{"token":"t"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// wantsToken pulls from a registry that asks for a token of that realm, which must not be fetched.
func wantsToken(t *testing.T, realm string) {
	h := newHostile(t)
	h.push(t, "1", false, hostPlatform(), threeLayers(t)...)
	h.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/hop" {
			http.Redirect(w, r, h.service.URL+"/token", http.StatusTemporaryRedirect)
			return true
		}
		if r.Header.Get("Authorization") != "" { // any token will do
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q,service=x", fmt.Sprintf(realm, h.port())))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	h.refuses(t, h.pull(t), "")
	if h.asked.Load() != 0 {
		t.Error("the service was asked")
	}
}

// TestAttackRegistryCredentials has a registry that the user is logged in to send whisk to another host, which must not
// learn who the user is.
//
// Wall: credentials.
func TestAttackRegistryCredentials(t *testing.T) {
	for name, challenge := range map[string]string{
		"a password":                     `Basic realm="x"`,
		"a token":                        `Bearer realm="http://registry.example/token",service="x"`,
		"a password that another wanted": `Basic realm="other.example"`,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t)
			h.push(t, "1", false, hostPlatform(), threeLayers(t)...)
			home := t.TempDir()
			t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(home, "auth.json"))
			secret := base64.StdEncoding.EncodeToString([]byte("alice:secret"))
			if err := os.WriteFile(filepath.Join(home, "auth.json"), fmt.Appendf(nil, `{"auths":{"registry.example":{"auth":%q}}}`, secret), 0o600); err != nil {
				t.Fatal(err)
			}
			var authorised atomic.Int64
			h.answer(func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case r.URL.Path == "/token":
					fmt.Fprint(w, `{"token":"of-alice"}`)
					return true
				case r.Header.Get("Authorization") == "":
					w.Header().Set("WWW-Authenticate", challenge)
					w.WriteHeader(http.StatusUnauthorized)
					return true
				case isBlob(r):
					authorised.Add(1)
					w.Header().Set("Location", "http://other.example/blob")
					w.WriteHeader(http.StatusTemporaryRedirect)
					return true
				}
				return false
			})
			h.refuses(t, h.pull(t), "digest")
			if authorised.Load() == 0 {
				t.Error("the registry itself got no credentials: it proves nothing")
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			if len(h.leaked) > 0 {
				t.Errorf("the other host got %q", h.leaked)
			}
		})
	}
}

// TestAttackPlainRedirect has a registry send whisk on to another host in the clear.
//
// Wall: registry redirects.
func TestAttackPlainRedirect(t *testing.T) {
	h := newHostile(t)
	h.push(t, "1", false, hostPlatform(), threeLayers(t)...)
	h.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if isBlob(r) {
			http.Redirect(w, r, "http://other.example/blob", http.StatusFound)
		}
		return isBlob(r)
	})
	_, err := h.store.Pull(t.Context(), mustRef(t, h.host+"/app:1"), PullOptions{})
	h.refuses(t, err, "plain http")
	if h.others.Load() != 0 {
		t.Error("the other host was asked")
	}
}

// endless writes until nobody reads, or more than anybody should.
func endless(w http.ResponseWriter, sent *atomic.Int64, head []byte) {
	_, _ = w.Write(head)
	chunk := make([]byte, 1<<20)
	for sent.Load() < 64<<20 {
		n, err := w.Write(chunk)
		if err != nil {
			return
		}
		sent.Add(int64(n))
	}
}

// TestAttackEndless has answers that never end.
//
// Wall: answer limits.
func TestAttackEndless(t *testing.T) {
	for name, c := range map[string]struct {
		when func(r *http.Request) bool
		code int
		want string
	}{
		"layer":    {func(r *http.Request) bool { return isBlob(r) && r.Header.Get("Range") == "" }, 200, "goes on after"},
		"manifest": {isManifest, 200, "larger than"},
		"error":    {isManifest, 500, ""},
		"refusal":  {func(r *http.Request) bool { return isManifest(r) || r.URL.Path == "/v2/" }, 401, "body exceeds"},
		"greeting": {func(r *http.Request) bool { return r.URL.Path == "/v2/" }, 500, "body exceeds"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t)
			layer := tarball(t, fileEntry("f", "x"))
			h.push(t, "1", false, hostPlatform(), layer)
			var sent atomic.Int64
			config := true
			h.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if !c.when(r) || r.Method == http.MethodHead {
					return false
				}
				if name == "layer" && config { // the first blob
					config = false
					return false
				}
				w.WriteHeader(c.code)
				endless(w, &sent, layer)
				return true
			})
			h.refuses(t, h.pull(t), c.want)
			if n := sent.Load(); n >= 64<<20 {
				t.Errorf("%d bytes were read", n)
			}
		})
	}
}

// image serves a manifest and blobs as they are, whatever they say of each other.
func (h *hostile) image(t *testing.T, m ocispec.Manifest, config []byte, blobs ...[]byte) {
	raw := map[digest.Digest][]byte{digest.FromBytes(config): config}
	for _, b := range blobs {
		raw[digest.FromBytes(b)] = b
	}
	doc := mustJSON(t, m)
	h.answer(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case isManifest(r):
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			_, _ = w.Write(doc)
			return true
		case isBlob(r):
			if b, ok := raw[digest.Digest(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:])]; ok && h.sent.Add(1) < 10 {
				_, _ = w.Write(b)
				return true
			}
		}
		return false
	})
}

// TestAttackDrip has a registry that keeps whisk waiting with a byte now and then.
//
// Wall: least pace.
func TestAttackDrip(t *testing.T) {
	const drips = 400
	for name, when := range map[string]func(r *http.Request) bool{"manifest": isManifest, "config or layer": isBlob} {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t)
			h.store.pace = pace{window: 50 * time.Millisecond, least: 1 << 20}
			h.push(t, "1", false, hostPlatform(), threeLayers(t)...)
			var most atomic.Int64
			h.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if !when(r) || r.Method == http.MethodHead {
					return false
				}
				w.WriteHeader(http.StatusOK)
				for n := range int64(drips) {
					_, _ = w.Write([]byte(" "))
					if http.NewResponseController(w).Flush() != nil || r.Context().Err() != nil {
						return true
					}
					most.Store(max(most.Load(), n+1))
					time.Sleep(5 * time.Millisecond)
				}
				return true
			})
			h.refuses(t, h.pull(t), "arrived") // a busy machine may see none in a window
			if most.Load() == drips {
				t.Error("whisk waited to the end")
			}
		})
	}
}

// forged is an image of one layer that a registry says untrue things of.
type forged struct {
	packed []byte // as the registry sends it
	change func(m *ocispec.Manifest, config *ocispec.Image)
	want   string
}

// pull serves the image, whose layer is this when it is told truly, and pulls it.
func (c forged) pull(t *testing.T, layer []byte) *hostile {
	t.Helper()
	h := newHostile(t)
	config := ocispec.Image{Platform: hostPlatform()}
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	m.Layers = []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(c.packed), Size: int64(len(c.packed))}}
	if c.change != nil {
		c.change(&m, &config)
	}
	raw := mustJSON(t, config)
	m.Config.Digest, m.Config.Size = digest.FromBytes(raw), int64(len(raw))
	h.image(t, m, raw, c.packed)
	h.refuses(t, h.pull(t), c.want)
	return h
}

// TestAttackManifest has layers that are not what the manifest and the config say.
//
// Wall: layer checks.
func TestAttackManifest(t *testing.T) {
	layer := tarball(t, fileEntry("f", noise(100_000)))
	gz, zst := squeeze(t, 0, layer), squeeze(t, 1, layer)
	for name, c := range map[string]forged{
		"gzip that is cut off": {gz[:len(gz)/2], nil, "ends in the middle"},
		"zstd that is cut off": {zst[:len(zst)/2], nil, "ends in the middle"},
		"tar that is cut off":  {layer[:len(layer)/2], nil, "ends in the middle"},
		"another layer's diff": {gz, func(_ *ocispec.Manifest, config *ocispec.Image) {
			config.RootFS.DiffIDs[0] = digest.FromString("another")
		}, "wrong digest"},
		"a size that is too small": {gz, func(m *ocispec.Manifest, _ *ocispec.Image) { m.Layers[0].Size-- }, "goes on after"},
		"a size that is too large": {gz, func(m *ocispec.Manifest, _ *ocispec.Image) { m.Layers[0].Size++ }, "the manifest says"},
		"a negative size":          {gz, func(m *ocispec.Manifest, _ *ocispec.Image) { m.Layers[0].Size = -1 }, "negative size"},
	} {
		t.Run(name, func(t *testing.T) { c.pull(t, layer) })
	}
	t.Run("another layer's bytes", func(t *testing.T) {
		other := squeeze(t, 0, tarball(t, fileEntry("g", "forged")))
		h := newHostile(t)
		h.push(t, "1", false, hostPlatform(), layer)
		config := true
		h.answer(func(w http.ResponseWriter, r *http.Request) bool {
			if !isBlob(r) || config {
				config = config && !isBlob(r) // the first blob
				return false
			}
			_, _ = w.Write(other)
			return true
		})
		h.refuses(t, h.pull(t), "layer")
	})
}

// TestAttackImageKind has what is no image to be run, or one that nobody can run.
//
// Wall: image checks.
func TestAttackImageKind(t *testing.T) {
	layer := tarball(t, fileEntry("f", "x"))
	gz := squeeze(t, 0, layer)
	t.Run("thousands of layers", func(t *testing.T) {
		h := forged{gz, func(m *ocispec.Manifest, config *ocispec.Image) {
			for range 5000 {
				m.Layers, config.RootFS.DiffIDs = append(m.Layers, m.Layers[0]), append(config.RootFS.DiffIDs, config.RootFS.DiffIDs[0])
			}
		}, "5001 layers"}.pull(t, layer)
		if n := h.sent.Load(); n > 1 { // the config
			t.Errorf("%d blobs were fetched", n)
		}
	})
	t.Run("a config of another kind", func(t *testing.T) {
		forged{gz, func(m *ocispec.Manifest, _ *ocispec.Image) {
			m.Config.MediaType = "application/\x1b[2J" + strings.Repeat("x", 10_000)
		}, "not a container image"}.pull(t, layer)
	})
}

// TestMalformedManifests are refused, whatever could be done with them.
func TestMalformedManifests(t *testing.T) {
	layer := tarball(t, fileEntry("f", "x"))
	gz := squeeze(t, 0, layer)
	for name, c := range map[string]forged{
		"no tar at all":               {[]byte(noise(5000)), nil, "not a tar archive"},
		"more layers than the config": {gz, func(m *ocispec.Manifest, _ *ocispec.Image) { m.Layers = append(m.Layers, m.Layers[0]) }, "names 1 layers"},
		"a digest that is a path":     {gz, func(m *ocispec.Manifest, _ *ocispec.Image) { m.Layers[0].Digest = "sha256:../../../../etc/passwd" }, "no sha256 digest"},
		"a diff that is a path":       {gz, func(_ *ocispec.Manifest, c *ocispec.Image) { c.RootFS.DiffIDs[0] = "sha256:../../x" }, "no sha256 digest"},
		"a digest of a weaker kind": {gz, func(m *ocispec.Manifest, _ *ocispec.Image) {
			m.Layers[0].Digest = "md5:d41d8cd98f00b204e9800998ecf8427e"
		}, "no sha256 digest"},
	} {
		t.Run(name, func(t *testing.T) { c.pull(t, layer) })
	}
}

// indexOf is an index of one image or index, for this machine.
func indexOf(d digest.Digest, mediaType string) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"digest":%q,"mediaType":%q,"size":5,"platform":{"os":"linux","architecture":%q}}]}`, d, mediaType, hostPlatform().Architecture)
}

// TestAttackIndex has indexes that lead to further ones, as long as anybody asks.
//
// Wall: index depth.
func TestAttackIndex(t *testing.T) {
	const many = 20
	t.Run("names itself", func(t *testing.T) {
		chain(t, "wrong digest", many, func(string) []byte { return indexOf(someDigest, ocispec.MediaTypeImageIndex) })
	})
	t.Run("names indexes without end", func(t *testing.T) {
		nested := map[string][]byte{}
		raw := indexOf(someDigest, ocispec.MediaTypeImageManifest)
		for range 50 {
			d := digest.FromBytes(raw)
			nested[d.String()] = raw
			raw = indexOf(d, ocispec.MediaTypeImageIndex)
		}
		chain(t, "without end", many, func(which string) []byte {
			if doc, ok := nested[which]; ok {
				return doc
			}
			return raw
		})
	})
}

// chain pulls from a registry of indexes only, which must not be asked many times.
func chain(t *testing.T, want string, many int64, doc func(which string) []byte) {
	h := newHostile(t)
	var asked atomic.Int64
	h.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !isManifest(r) || asked.Add(1) > 2*many {
			return false
		}
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		_, _ = w.Write(doc(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]))
		return true
	})
	h.refuses(t, h.pull(t), want)
	if n := asked.Load(); n > many {
		t.Errorf("%d indexes were fetched", n)
	}
}

// TestAttackTwoMeanings has a manifest that is one image to one reader and another to the next (CVE-2021-41190).
//
// Wall: one meaning.
func TestAttackTwoMeanings(t *testing.T) {
	for name, mediaType := range map[string]string{
		"an index that is a manifest as well": ocispec.MediaTypeImageIndex,
		"a manifest that is an index as well": ocispec.MediaTypeImageManifest,
	} {
		t.Run(name, func(t *testing.T) {
			layer := tarball(t, fileEntry("f", "x"))
			h := newHostile(t)
			one := h.push(t, "1", false, hostPlatform(), layer)
			both := append([]byte(`{"manifests":[`), fmt.Appendf(nil, `{"digest":%q,"mediaType":%q,"size":5,"platform":{"os":"linux","architecture":%q}}],`, one.Digest, ocispec.MediaTypeImageManifest, hostPlatform().Architecture)...)
			both = append(both, h.through(t, "/v2/app/manifests/1")[1:]...)
			h.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if !isManifest(r) || !strings.HasSuffix(r.URL.Path, "/1") {
					return false
				}
				w.Header().Set("Content-Type", mediaType)
				_, _ = w.Write(both)
				return true
			})
			h.refuses(t, h.pull(t), "an index as well")
		})
	}
}

func TestMalformedIndexes(t *testing.T) {
	for name, c := range map[string]struct{ doc, mediaType, want string }{
		"nested ten thousand deep":   {strings.Repeat("[", 20_000), ocispec.MediaTypeImageIndex, "manifest"},
		"of a web page's media type": {`{"x":1}`, "text/html; charset=\x9b2J", "media type"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t)
			h.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if isManifest(r) {
					w.Header().Set("Content-Type", c.mediaType)
					_, _ = io.WriteString(w, c.doc)
				}
				return isManifest(r)
			})
			h.refuses(t, h.pull(t), c.want)
		})
	}
}

// TestAttackRebinding has a registry whose name stands for another address when it is asked again.
//
// Wall: registry redirects.
func TestAttackRebinding(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	noProxy := func(*http.Request) (*url.URL, error) { return nil, nil }
	var inner *innerError
	// What resolves to loopback is as good as loopback, whatever it is called.
	if c, err := guardedDial("registry.example", noProxy, nil)(t.Context(), "tcp", l.Addr().String()); !errors.As(err, &inner) {
		t.Errorf("connection %v, %v; want it refused", c, err)
	}
	// A proxy of the user's may be on this machine.
	proxy := func(*http.Request) (*url.URL, error) { return &url.URL{Host: l.Addr().String()}, nil }
	for _, dial := range []dialFunc{guardedDial("registry.example", proxy, nil), guardedDial(l.Addr().String(), noProxy, nil)} {
		c, err := dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Errorf("a proxy, or a registry of this machine: %v", err)
			continue
		}
		c.Close()
	}
}

func TestInnerAddress(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1": true, "127.9.9.9": true, "::1": true, "0.0.0.0": true, "::": true, "169.254.169.254": true, "fe80::1": true,
		"::ffff:127.0.0.1": true, "::ffff:169.254.169.254": true, "10.0.0.1": false, "192.168.1.1": false, "1.1.1.1": false, "2606:4700::1": false,
	} {
		if got := innerAddress(netip.MustParseAddr(address)); got != want {
			t.Errorf("innerAddress(%s) = %v, want %v", address, got, want)
		}
	}
}

// TestAttackArchiveFile has a layout folder whose files are what blocks or leads out.
//
// Wall: archive files.
func TestAttackArchiveFile(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(`{"schemaVersion":2,"manifests":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(path string) error{
		"that waits for a writer": func(path string) error { return unix.Mkfifo(path, 0o600) },
		"that is a link outside":  func(path string) error { return os.Symlink(secret, path) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, s := t.TempDir(), openStore(t)
			path := filepath.Join(dir, "index.json")
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			loaded := loadHostile(t, s, dir)
			select {
			case err := <-loaded:
				if strings.Contains(fmt.Sprint(err), "its index is empty") {
					t.Error("the link was followed")
				}
			case <-time.After(10 * time.Second):
				t.Error("whisk waits for what does not come")
				w, err := os.OpenFile(path, os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				w.Close()
				<-loaded
			}
			clean(t, s)
		})
	}
}

func TestArchiveFileThatIsAFolder(t *testing.T) {
	dir, s := t.TempDir(), openStore(t)
	if err := os.Mkdir(filepath.Join(dir, "index.json"), 0o755); err != nil {
		t.Fatal(err)
	}
	<-loadHostile(t, s, dir)
	clean(t, s)
}

// loadHostile loads a layout folder, which must fail in one line.
func loadHostile(t *testing.T, s *Store, dir string) <-chan error {
	loaded := make(chan error, 1)
	go func() {
		_, err := s.Load(context.Background(), dir, LoadOptions{Name: "hostile"})
		oneLine(t, err)
		loaded <- err
	}()
	return loaded
}
