package image

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.podman.io/storage"
)

func TestUnreferenced(t *testing.T) {
	stack := func(ids ...string) []storage.Layer { // "child<parent"
		var out []storage.Layer
		for _, id := range ids {
			child, parent, _ := strings.Cut(id, "<")
			out = append(out, storage.Layer{ID: child, Parent: parent})
		}
		return out
	}
	for _, c := range []struct {
		name   string
		layers []storage.Layer
		images []storage.Image
		want   string
	}{
		{"nothing", nil, nil, ""},
		{"all in use", stack("a", "b<a", "c<b"), []storage.Image{{TopLayer: "c"}}, ""},
		{"the upper part of a stack", stack("a", "b<a", "c<b", "d<c"), []storage.Image{{TopLayer: "b"}}, "d c"},
		{"a branch", stack("a", "b<a", "x<a", "y<x", "z<x"), []storage.Image{{TopLayer: "b"}}, "y z x"},
		{"no image", stack("b<a", "a"), nil, "b a"},
		{"an image whose layer is gone", stack("a"), []storage.Image{{TopLayer: "gone"}}, "a"},
		{"a layer for another map", stack("a", "m"), []storage.Image{{TopLayer: "a", MappedTopLayers: []string{"m"}}}, ""},
	} {
		if got := strings.Join(unreferenced(c.layers, c.images), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// cancelled pulls the tag and cancels that when the last layer is asked for and the two below it are in the store.
func cancelled(t *testing.T, tr *testRegistry, s *Store, tag string, layers [][]byte) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := layerCount(t, s)
	last := digest.FromBytes(squeeze(t, len(layers)-1, layers[len(layers)-1])).String()
	tr.answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, last) || r.Method != http.MethodGet {
			return false
		}
		for ctx.Err() == nil && layerCount(t, s) < before+len(layers)-1 {
			time.Sleep(time.Millisecond)
		}
		cancel()
		<-r.Context().Done()
		return true
	})
	if _, err := s.Pull(ctx, mustRef(t, tr.host+"/app:"+tag), PullOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("the pull was not cancelled: %v", err)
	}
	tr.answer(func(http.ResponseWriter, *http.Request) bool { return false })
	if n := layerCount(t, s); n != before+len(layers)-1 {
		t.Fatalf("%d layers after the cancelled pull, want %d", n, before+len(layers)-1)
	}
}

func layerCount(t *testing.T, s *Store) int {
	layers, err := s.store.Layers()
	if err != nil {
		t.Error(err)
	}
	return len(layers)
}

func TestLayersOfCancelledPullsArePruned(t *testing.T) {
	tr, s := newRegistry(t), openStore(t)
	layers := threeLayers(t)
	tr.push(t, "1", false, hostPlatform(), layers...)
	other := [][]byte{tarball(t, fileEntry("other", "x"))}
	tr.push(t, "2", false, hostPlatform(), other...)

	// The same pull again uses what was finished.
	cancelled(t, tr, s, "1", layers)
	fetched := tr.blobs.Load()
	if _, err := s.Pull(t.Context(), mustRef(t, tr.host+"/app:1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := tr.blobs.Load() - fetched; n != 2 {
		t.Errorf("%d blobs fetched by the second try, want the config and the last layer", n)
	}
	if _, _, err := s.Remove(t.Context(), tr.host+"/app:1", RemoveOptions{}); err != nil || layerCount(t, s) != 0 {
		t.Fatalf("%d layers left, %v", layerCount(t, s), err)
	}

	// Another pull takes them away, and so does the removal of another image.
	cancelled(t, tr, s, "1", layers)
	if _, err := s.Pull(t.Context(), mustRef(t, tr.host+"/app:2"), PullOptions{}); err != nil || layerCount(t, s) != 1 {
		t.Fatalf("%d layers after another pull, want its one: %v", layerCount(t, s), err)
	}
	cancelled(t, tr, s, "1", layers)
	if _, _, err := s.Remove(t.Context(), tr.host+"/app:2", RemoveOptions{}); err != nil || layerCount(t, s) != 0 {
		t.Fatalf("%d layers after another image's removal, want none: %v", layerCount(t, s), err)
	}
	if dirs, _ := filepath.Glob(filepath.Join(s.overlayDir(), "*", "diff")); len(dirs) != 0 {
		t.Errorf("left on disk: %v", dirs)
	}
}

// TestPruneKeepsOffWhatIsBeingPulled: a pull under way has layers without an image; another that ends meanwhile leaves them.
func TestPruneKeepsOffWhatIsBeingPulled(t *testing.T) {
	tr, s := newRegistry(t), openStore(t)
	layers := threeLayers(t)
	tr.push(t, "1", false, hostPlatform(), layers...)
	tr.push(t, "2", false, hostPlatform(), tarball(t, fileEntry("other", "x")))
	last := digest.FromBytes(squeeze(t, 2, layers[2])).String()
	var once sync.Once
	tr.answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, last) && r.Method == http.MethodGet {
			once.Do(func() {
				for layerCount(t, s) < 2 {
					time.Sleep(time.Millisecond)
				}
				if _, err := s.Pull(t.Context(), mustRef(t, tr.host+"/app:2"), PullOptions{}); err != nil {
					t.Error(err)
				}
				if _, _, err := s.Remove(t.Context(), tr.host+"/app:2", RemoveOptions{}); err != nil {
					t.Error(err)
				}
				if n := layerCount(t, s); n != 2 {
					t.Errorf("%d layers of the pull under way are left, want 2", n)
				}
			})
		}
		return false
	})
	fetched := tr.blobs.Load()
	img, err := s.Pull(t.Context(), mustRef(t, tr.host+"/app:1"), PullOptions{})
	if err != nil || len(img.Layers) != 3 {
		t.Fatalf("%+v, %v", img, err)
	}
	if n := tr.blobs.Load() - fetched; n != 3+1+1+1 {
		t.Errorf("%d blobs fetched, want each once: six", n)
	}
}
