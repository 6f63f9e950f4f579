package keeper

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/whisk-sandbox/whisk/image"
	"github.com/whisk-sandbox/whisk/launcher"
)

// Built-in images: they need no store.
const (
	hostImage = "host"
	demoImage = "demo"
)

// base finds what a sandbox is laid over. An image that the store lacks is an error of KindImageMissing.
func (s *server) base(ctx context.Context, spec *launcher.Spec) (*launcher.Base, error) {
	switch spec.App.Image {
	case hostImage:
		shell := cmp.Or(os.Getenv("SHELL"), "/bin/sh")
		return &launcher.Base{Name: hostImage, Layers: []string{"/"}, Host: true, Config: imagespec.ImageConfig{Cmd: []string{shell}}}, nil
	case demoImage:
		return s.demoBase()
	}
	store, err := s.openStore()
	if err != nil {
		return nil, err
	}
	defer store.Close()
	img, err := store.Lookup(ctx, spec.App.Image)
	var missing *image.NotFoundError
	if errors.As(err, &missing) {
		return nil, &launcher.Error{Message: fmt.Sprintf("image %q is not here", spec.App.Image), Hint: "whisk pull " + spec.App.Image, Kind: launcher.KindImageMissing, Images: []string{spec.App.Image}, Exit: launcher.ExitWhisk}
	}
	if err != nil {
		return nil, err
	}
	if want := spec.App.Platform; want != "" && !strings.HasPrefix(img.Platform+"/", strings.TrimSuffix(want, "/")+"/") {
		return nil, &launcher.Error{Message: fmt.Sprintf("image %q is here for %s and not for %s", spec.App.Image, img.Platform, want), Hint: "whisk pull --platform " + want + " " + spec.App.Image, Kind: launcher.KindImageMissing, Images: []string{spec.App.Image}, Exit: launcher.ExitWhisk}
	}
	return &launcher.Base{Name: spec.App.Image, ID: img.ID, Digest: img.Digest.String(), Dir: img.Base, Layers: img.Layers, Config: img.Config}, nil
}

func (s *server) openStore() (*image.Store, error) {
	return image.Open(image.Options{GraphRoot: s.doc.Dirs.Storage(), RunRoot: s.doc.Dirs.StorageRun(), IgnoreChownErrors: s.doc.Single})
}

// allImages reports every image that is missing in one error, so that they can be pulled together.
func (s *server) allImages(ctx context.Context, specs []launcher.Spec) error {
	var all *launcher.Error
	seen := map[string]bool{}
	for i := range specs {
		name := specs[i].App.Image
		if seen[name] {
			continue
		}
		seen[name] = true
		_, err := s.base(ctx, &specs[i])
		var e *launcher.Error
		if errors.As(err, &e) && e.Kind == launcher.KindImageMissing {
			if all == nil {
				all = e
			} else {
				all.Images = append(all.Images, e.Images...)
			}
			continue
		}
		if err != nil {
			return appError(specs[i].App.Name, err)
		}
	}
	if all != nil {
		return all
	}
	return nil
}

// demoBase is an image that holds whisk's own binary and nothing else.
func (s *server) demoBase() (*launcher.Base, error) {
	dir := filepath.Join(s.doc.Dirs.Data, "demo")
	for _, d := range []string{"etc", "tmp", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("make the demo's image: %w", err)
		}
	}
	for name, text := range map[string]string{"etc/passwd": "root:x:0:0:root:/:/\n", "etc/group": "root:x:0:\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("make the demo's image: %w", err)
		}
	}
	return &launcher.Base{
		Name: demoImage, Layers: []string{dir}, Binds: map[string]string{s.doc.Self: "/whisk"},
		Config: imagespec.ImageConfig{Cmd: []string{"/whisk", "version"}, Env: []string{"PATH=/"}},
	}, nil
}

// normal is a spec as it comes out of its JSON form, in which a nil and an empty list are the same.
func normal(s *launcher.Spec) map[string]any {
	b, err := json.Marshal(s)
	if err != nil {
		return nil
	}
	var m map[string]any
	if json.Unmarshal(b, &m) != nil {
		return nil
	}
	return m
}
