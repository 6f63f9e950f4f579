package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// testRegistry is a registry in this process; handle may answer in its place.
type testRegistry struct {
	host   string
	handle atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool]
	blobs  atomic.Int64 // layers and configs fetched
	asked  atomic.Int64 // requests in all
}

func newRegistry(t testing.TB) *testRegistry {
	t.Helper()
	tr := &testRegistry{}
	inner := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tr.asked.Add(1)
		if h := tr.handle.Load(); h != nil && (*h)(w, r) {
			return
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			tr.blobs.Add(1)
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	tr.host = strings.TrimPrefix(srv.URL, "http://")
	return tr
}

func (tr *testRegistry) answer(h func(w http.ResponseWriter, r *http.Request) bool) {
	tr.handle.Store(&h)
}

func (tr *testRegistry) upload(t testing.TB, method, path, mediaType string, body []byte) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+tr.host+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %s: %s", path, resp.Status, text)
	}
}

func (tr *testRegistry) blob(t testing.TB, mediaType string, b []byte) ocispec.Descriptor {
	t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	tr.upload(t, http.MethodPost, "/v2/app/blobs/uploads/?digest="+d.Digest.String(), "application/octet-stream", b)
	return d
}

// push uploads an image of these tar streams and returns its manifest's descriptor.
func (tr *testRegistry) push(t testing.TB, tag string, docker bool, p ocispec.Platform, layers ...[]byte) ocispec.Descriptor {
	t.Helper()
	img := ocispec.Image{Platform: p, Config: ocispec.ImageConfig{Env: []string{"A=b"}, Cmd: []string{"/run"}, User: "app"}}
	img.RootFS.Type = "layers"
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	configType, layerType := ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip
	if docker {
		m.MediaType, configType, layerType = dockerManifest, "application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip"
	}
	for i, l := range layers {
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromBytes(l))
		m.Layers = append(m.Layers, tr.blob(t, layerType, squeeze(t, i%3, l)))
	}
	m.Config = tr.blob(t, configType, mustJSON(t, img))
	raw := mustJSON(t, m)
	tr.upload(t, http.MethodPut, "/v2/app/manifests/"+tag, m.MediaType, raw)
	return ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw)), Platform: &p}
}

// squeeze packs by gzip, zstd or not at all.
func squeeze(t testing.TB, how int, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	switch how {
	case 0:
		w = gzip.NewWriter(&out)
	case 1:
		z, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		w = z
	default:
		return b
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func mustRef(t testing.TB, s string) Reference {
	t.Helper()
	ref, err := ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func noise(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return string(b)
}

func threeLayers(t testing.TB) [][]byte {
	return [][]byte{
		tarball(t, dirEntry("./"), dirEntry("etc"), fileEntry("etc/a", "1"), fileEntry("big", noise(3<<20))),
		tarball(t, dirEntry("etc"), fileEntry("etc/.wh.a", ""), fileEntry("etc/b", noise(1<<20))),
		tarball(t, fileEntry("top", "3")),
	}
}

func TestPullIsWholeAndSecondPullMovesNothing(t *testing.T) {
	for name, docker := range map[string]bool{"oci": false, "docker": true} {
		t.Run(name, func(t *testing.T) {
			tr, s := newRegistry(t), openStore(t)
			layers := threeLayers(t)
			d := tr.push(t, "1", docker, hostPlatform(), layers...)
			ref := mustRef(t, tr.host+"/app:1")
			states := map[LayerState]int{}
			img, err := s.Pull(t.Context(), ref, PullOptions{Progress: func(s Step) { states[s.State]++ }})
			if err != nil {
				t.Fatal(err)
			}
			if img.Digest != d.Digest || len(img.Layers) != 3 || img.Config.User != "app" || img.Platform != showPlatform(hostPlatform()) || img.Size != int64(len(layers[0])+len(layers[1])+len(layers[2])) {
				t.Errorf("image = %+v", img)
			}
			if states[Done] != 3 {
				t.Errorf("progress: %v, want three layers done", states)
			}
			top, err := os.ReadFile(filepath.Join(img.Base, img.Layers[0], "top"))
			if err != nil || string(top) != "3" {
				t.Errorf("topmost layer: %q, %v", top, err)
			}
			if st := stat(t, filepath.Join(img.Base, img.Layers[1], "etc/a")); st.Rdev != 0 {
				t.Errorf("etc/a is no whiteout: %+v", st)
			}
			blobs := tr.blobs.Load()
			asked := tr.asked.Load()
			if again, err := s.Pull(t.Context(), ref, PullOptions{}); err != nil || again.ID != img.ID {
				t.Fatalf("second pull: %v, %v", again, err)
			}
			if tr.blobs.Load() != blobs || tr.asked.Load()-asked > 2 {
				t.Errorf("second pull: %d blobs, %d requests; want none and a ping with one question", tr.blobs.Load()-blobs, tr.asked.Load()-asked)
			}
			asked = tr.asked.Load()
			if _, err := s.Pull(t.Context(), ref, PullOptions{Policy: PullMissing}); err != nil || tr.asked.Load() != asked {
				t.Errorf("pull of what is here, if missing: %v, %d requests", err, tr.asked.Load()-asked)
			}
			// By digest it is here already, under another name.
			byDigest, err := s.Pull(t.Context(), mustRef(t, tr.host+"/app@"+d.Digest.String()), PullOptions{})
			if err != nil || byDigest.ID != img.ID || len(byDigest.Names) != 2 {
				t.Errorf("pull by digest: %+v, %v", byDigest, err)
			}
		})
	}
}

func TestPullFetchesOnlyTheLayersThatAreMissing(t *testing.T) {
	tr, s := newRegistry(t), openStore(t)
	layers := threeLayers(t)
	tr.push(t, "1", false, hostPlatform(), layers...)
	if _, err := s.Pull(t.Context(), mustRef(t, tr.host+"/app:1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	tr.push(t, "2", false, hostPlatform(), layers[0], layers[1], tarball(t, fileEntry("other", "")))
	before := tr.blobs.Load()
	if _, err := s.Pull(t.Context(), mustRef(t, tr.host+"/app:2"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := tr.blobs.Load() - before; n != 2 {
		t.Errorf("%d blobs fetched, want the config and one layer", n)
	}
}

func TestPullChoosesThePlatform(t *testing.T) {
	tr, s := newRegistry(t), openStore(t)
	var index ocispec.Index
	index.SchemaVersion, index.MediaType = 2, ocispec.MediaTypeImageIndex
	for _, p := range []string{"linux/amd64", "linux/arm64", "linux/arm/v6", "linux/arm/v7"} {
		platform, err := parsePlatform(p)
		if err != nil {
			t.Fatal(err)
		}
		index.Manifests = append(index.Manifests, tr.push(t, strings.ReplaceAll(p, "/", "-"), false, platform, tarball(t, fileEntry("p", p))))
	}
	tr.upload(t, http.MethodPut, "/v2/app/manifests/all", index.MediaType, mustJSON(t, index))
	ref := mustRef(t, tr.host+"/app:all")
	for _, p := range []string{"linux/arm64", "linux/arm/v6", "arm", "", "linux/aarch64"} {
		img, err := s.Pull(t.Context(), ref, PullOptions{Platform: p})
		want, _ := parsePlatform(p)
		if err != nil || img.Platform != showPlatform(want) {
			t.Errorf("platform %q: %+v, %v", p, img, err)
		}
	}
	_, err := s.Pull(t.Context(), ref, PullOptions{Platform: "linux/riscv64"})
	if err == nil || !strings.Contains(err.Error(), "linux/riscv64") || !strings.Contains(err.Error(), "linux/arm64") {
		t.Errorf("error %v, want one that lists what there is", err)
	}
	if img, err := s.Lookup(t.Context(), tr.host+"/app@"+digest.FromBytes(mustJSON(t, index)).String()); err != nil || img.Platform != showPlatform(hostPlatform()) {
		t.Errorf("lookup by the index's digest: %+v, %v", img, err)
	}
}

func TestPullFaultsAreOneLineAndLeaveNothing(t *testing.T) {
	blob := func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
	}
	manifest := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }
	status := func(code int, when func(*http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if when(r) {
				w.WriteHeader(code)
			}
			return when(r)
		}
	}
	text := func(body, mediaType string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !manifest(r) {
				return false
			}
			w.Header().Set("Content-Type", mediaType)
			fmt.Fprint(w, body)
			return true
		}
	}
	for name, c := range map[string]struct {
		handle func(http.ResponseWriter, *http.Request) bool
		want   string
	}{
		"no such image": {status(404, manifest), "no such image"},
		"blob lost":     {status(404, blob), "has lost a part"},
		"unauthorized":  {status(401, manifest), "unauthorized"},
		"forbidden":     {status(403, manifest), "does not let you"},
		"rate limit":    {status(429, manifest), "too many requests"},
		"server error":  {status(500, manifest), "answered 500"},
		"wrong bytes": {func(w http.ResponseWriter, r *http.Request) bool {
			if blob(r) {
				fmt.Fprint(w, "something else")
			}
			return blob(r)
		}, "digest"},
		"cut off": {func(w http.ResponseWriter, r *http.Request) bool {
			if blob(r) {
				w.Header().Set("Content-Length", "100000")
				fmt.Fprint(w, "\x1f\x8b\x08 and no more")
				panic(http.ErrAbortHandler)
			}
			return false
		}, "cut the connection off"},
		"schema 1":        {text(`{"schemaVersion":1,"fsLayers":[]}`, "application/vnd.docker.distribution.manifest.v1+prettyjws"), "schema 1"},
		"no image":        {text(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"`+someDigest+`"}}`, ocispec.MediaTypeImageManifest), "not a container image"},
		"not json":        {text("<html>", "text/html"), "manifest"},
		"huge manifest":   {text(strings.Repeat(" ", maxManifest+2), ocispec.MediaTypeImageManifest), "larger than"},
		"digest escapes":  {text(`{"schemaVersion":2,"config":{"digest":"sha256:../../../etc/passwd"}}`, ocispec.MediaTypeImageManifest), "no sha256 digest"},
		"empty index":     {text(`{"schemaVersion":2,"manifests":[]}`, ocispec.MediaTypeImageIndex), "lists no image"},
		"huge config":     {text(`{"schemaVersion":2,"config":{"digest":"`+someDigest+`","size":99999999}}`, ocispec.MediaTypeImageManifest), "larger than"},
		"nesting indexes": {text(`{"schemaVersion":2,"manifests":[{"digest":"`+someDigest+`","mediaType":"`+ocispec.MediaTypeImageIndex+`"}]}`, ocispec.MediaTypeImageIndex), "digest"},
	} {
		t.Run(name, func(t *testing.T) {
			tr, s := newRegistry(t), openStore(t)
			tr.push(t, "1", false, hostPlatform(), threeLayers(t)...)
			tr.answer(c.handle)
			_, err := s.Pull(t.Context(), mustRef(t, tr.host+"/app:1"), PullOptions{})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("error %q, want one line about %q", err, c.want)
			}
			clean(t, s)
			tr.handle.Store(nil)
			if _, err := s.Pull(t.Context(), mustRef(t, tr.host+"/app:1"), PullOptions{}); err != nil {
				t.Errorf("the next pull: %v", err)
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		_, err := openStore(t).Pull(t.Context(), mustRef(t, "127.0.0.1:1/app"), PullOptions{})
		if err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("error %v", err)
		}
	})
}

// clean checks that a store has no image and nothing staged.
func clean(t *testing.T, s *Store) {
	t.Helper()
	images, err := s.List(t.Context())
	if err != nil || len(images) != 0 {
		t.Errorf("images: %+v, %v; want none", images, err)
	}
	if left, _ := os.ReadDir(s.stagingDir()); len(left) != 0 {
		t.Errorf("left in staging: %v", left)
	}
}

func TestPullResumesABrokenConnection(t *testing.T) {
	tr, s := newRegistry(t), openStore(t)
	layers := threeLayers(t)
	tr.push(t, "1", false, hostPlatform(), layers...)
	var broke atomic.Bool
	raw := squeeze(t, 0, layers[0])
	tr.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, digest.FromBytes(raw).String()) && r.Header.Get("Range") == "" && broke.CompareAndSwap(false, true) {
			w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
			_, _ = w.Write(raw[:len(raw)/2])
			panic(http.ErrAbortHandler)
		}
		return false
	})
	if _, err := s.Pull(t.Context(), mustRef(t, tr.host+"/app:1"), PullOptions{}); err != nil || !broke.Load() {
		t.Errorf("pull: %v, broken: %v", err, broke.Load())
	}
}

func TestPullUsesTheCredentialsFiles(t *testing.T) {
	tr := newRegistry(t)
	tr.push(t, "1", false, hostPlatform(), threeLayers(t)...)
	tr.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, ok := r.BasicAuth(); ok && u == "alice" && p == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	ref := mustRef(t, tr.host+"/app:1")
	auth := func(key, password string) string {
		return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, key, base64.StdEncoding.EncodeToString([]byte("alice:"+password)))
	}
	for name, c := range map[string]struct {
		file, text string
		ok         bool
	}{
		"none":               {"unrelated", "", false},
		"docker":             {".docker/config.json", auth(tr.host, "secret"), true},
		"docker, wrong":      {".docker/config.json", auth(tr.host, "wrong"), false},
		"containers":         {"run/containers/auth.json", auth(tr.host, "secret"), true},
		"one repository":     {".config/containers/auth.json", auth(tr.host+"/app", "secret"), true},
		"another repository": {".config/containers/auth.json", auth(tr.host+"/other", "secret"), false},
		"variable":           {"mine.json", auth(tr.host, "secret"), true},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			for _, v := range []string{"DOCKER_CONFIG", "XDG_CONFIG_HOME"} {
				t.Setenv(v, "")
			}
			t.Setenv("HOME", home)
			t.Setenv("XDG_RUNTIME_DIR", home+"/run")
			t.Setenv("REGISTRY_AUTH_FILE", home+"/mine.json")
			file := filepath.Join(home, c.file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(c.text), 0o600)); err != nil {
				t.Fatal(err)
			}
			_, err := openStore(t).Pull(t.Context(), ref, PullOptions{})
			if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "unauthorized") {
				t.Errorf("pull: %v; want it to work: %v", err, c.ok)
			}
		})
	}
}

func TestPlainHTTPOnlyOnTheLoopback(t *testing.T) {
	w := &wire{next: &http.Transport{}}
	for _, url := range []string{"http://192.168.1.1:1/v2/", "http://10.0.0.1/", "http://example.test/"} {
		r := httptest.NewRequest(http.MethodGet, url, nil)
		if _, err := w.RoundTrip(r); !errors.Is(err, errPlainHTTP) { //nolint:bodyclose // there is no answer
			t.Errorf("%s: %v, want it refused", url, err)
		}
	}
}

func TestPullCancelled(t *testing.T) {
	tr, s := newRegistry(t), openStore(t)
	tr.push(t, "1", false, hostPlatform(), threeLayers(t)...)
	ctx, cancel := context.WithCancel(t.Context())
	tr.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodGet {
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write([]byte{0x1f, 0x8b, 8, 0})
			_ = http.NewResponseController(w).Flush()
			cancel()
			<-r.Context().Done()
			return true
		}
		return false
	})
	begin := time.Now()
	if _, err := s.Pull(ctx, mustRef(t, tr.host+"/app:1"), PullOptions{}); !errors.Is(err, context.Canceled) || time.Since(begin) > time.Minute {
		t.Errorf("pull: %v after %s, want it cancelled at once", err, time.Since(begin))
	}
	clean(t, s)
}

func TestTwoPullsShareTheWork(t *testing.T) {
	tr, s := newRegistry(t), openStore(t)
	tr.push(t, "1", false, hostPlatform(), threeLayers(t)...)
	var cmds []*exec.Cmd
	for range 3 {
		cmd := exec.Command("/proc/self/exe", pullStage, tr.host+"/app:1", s.opts.GraphRoot, s.opts.RunRoot)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if n := tr.blobs.Load(); n > 3+3 {
		t.Errorf("%d blobs fetched, want each layer once and a config for each process", n)
	}
	if _, err := s.Lookup(t.Context(), tr.host+"/app:1"); err != nil {
		t.Error(err)
	}
}

// A process that the library forks is not under our control: killed at the wrong moment, whisk would leave it behind
// with the locks of the layers that were being unpacked.
func TestThePullForksNothing(t *testing.T) {
	tr, s := newRegistry(t), openStore(t)
	tr.push(t, "1", false, hostPlatform(), threeLayers(t)...)
	if _, err := s.Pull(t.Context(), mustRef(t, tr.host+"/app:1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	// The driver notes what it has tried out.
	tried, err := filepath.Glob(filepath.Join(s.opts.RunRoot, driverName, "*idmapped*"))
	if err != nil || len(tried) > 0 {
		t.Errorf("the library's driver forked to try out mounts with mapped ids: %v, %v", tried, err)
	}
}

// The library removes the short names of all layers with a layer whose own was not written whole.
func TestShortNamesOfLayersComeBack(t *testing.T) {
	tr, s := newRegistry(t), openStore(t)
	layers := threeLayers(t)
	tr.push(t, "1", false, hostPlatform(), layers...)
	if _, err := s.Pull(t.Context(), mustRef(t, tr.host+"/app:1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(s.overlayDir(), "l")); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(s.overlayDir(), strings.Repeat("0", 64))
	if err := errors.Join(os.Mkdir(half, 0o700), os.WriteFile(filepath.Join(half, "link"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	img, err := s.Lookup(t.Context(), tr.host+"/app:1")
	if err != nil || len(img.Layers) != 3 {
		t.Fatalf("%+v, %v", img, err)
	}
	for i, l := range []int{2, 1, 0} {
		if err := compareFiles(filepath.Join(img.Base, img.Layers[i]), layers[l]); err != nil {
			t.Error(err)
		}
	}
	// What is really gone is told.
	lowest, err := filepath.EvalSymlinks(filepath.Join(img.Base, img.Layers[2]))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Dir(lowest)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lookup(t.Context(), tr.host+"/app:1"); err == nil || !strings.Contains(err.Error(), "it is damaged") {
		t.Errorf("a layer is gone: %v", err)
	}
}

func TestKilledPullsLeaveAReadableStore(t *testing.T) {
	tr, s := newRegistry(t), openStore(t)
	layers := threeLayers(t)
	tr.push(t, "1", false, hostPlatform(), layers...)
	finished := 0
	for i := range 20 {
		cmd := exec.Command("/proc/self/exe", pullStage, tr.host+"/app:1", s.opts.GraphRoot, s.opts.RunRoot)
		// Mounts by which the store's driver tries the kernel out go with the namespace, as a stage's do.
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(5+10*i)) * time.Millisecond)
		_ = cmd.Process.Kill()
		if cmd.Wait() == nil {
			finished++
		}
		images, err := s.List(t.Context())
		if err != nil {
			t.Fatalf("after kill %d: %v", i, err)
		}
		for _, img := range images {
			if len(img.Layers) != 3 {
				t.Errorf("after kill %d: half an image: %+v", i, img)
			}
			if _, _, err := s.Remove(t.Context(), img.ID, RemoveOptions{Force: true}); err != nil {
				t.Errorf("after kill %d: %v", i, err)
			}
		}
	}
	t.Logf("%d of 20 pulls were faster than the kill", finished)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // one that waits for a lost lock waits for ever
	defer cancel()
	img, err := s.Pull(ctx, mustRef(t, tr.host+"/app:1"), PullOptions{})
	if err != nil || len(img.Layers) != 3 {
		t.Fatalf("the next pull: %+v, %v", img, err)
	}
	if left, _ := os.ReadDir(s.stagingDir()); len(left) != 0 {
		t.Errorf("left in staging: %v", left)
	}
	for i, l := range []int{2, 1, 0} {
		if err := compareFiles(filepath.Join(img.Base, img.Layers[i]), layers[l]); err != nil {
			t.Error(err)
		}
	}
}
