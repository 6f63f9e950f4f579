package keeper

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/image"
	"github.com/whisk-sandbox/whisk/launcher"
)

// Built-in images: they need no store.
const (
	hostImage = "host"
	demoImage = "demo"
)

// base finds what a sandbox is laid over: the image that its spec names, or of a sandbox that was made from one, the
// image of that id. One that the store lacks is an error of KindImageMissing.
func (s *server) base(ctx context.Context, spec *launcher.Spec, id string) (*launcher.Base, error) {
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
	img, err := store.Lookup(ctx, cmp.Or(id, spec.App.Image))
	var missing *image.NotFoundError
	if id != "" && (errors.As(err, &missing) || err == nil && img.ID != id) {
		return nil, &launcher.Error{Message: fmt.Sprintf("image %q is here no more as sandbox %q was made from it", spec.App.Image, spec.Name), Hint: "whisk rm " + spec.Name + ", and make it anew", Exit: launcher.ExitWhisk}
	}
	if errors.As(err, &missing) {
		return nil, imageMissing(&spec.App, fmt.Sprintf("image %q is not here", spec.App.Image))
	}
	if err != nil {
		return nil, err
	}
	fits, err := img.RunsOn(spec.App.Platform)
	if err != nil {
		return nil, err
	}
	if !fits && id == "" {
		return nil, imageMissing(&spec.App, fmt.Sprintf("image %q is here for %s and not for %s", spec.App.Image, img.Platform, spec.App.Platform))
	}
	return &launcher.Base{Name: spec.App.Image, ID: img.ID, Digest: img.Digest.String(), Dir: img.Base, Layers: img.Layers, Config: img.Config}, nil
}

// imageMissing asks for an app's image to be pulled.
func imageMissing(app *config.App, message string) error {
	hint := "whisk pull "
	if app.Platform != "" {
		hint += "--platform " + app.Platform + " "
	}
	wanted := []launcher.Wanted{{Image: app.Image, Platform: app.Platform}}
	return &launcher.Error{Message: message, Hint: hint + app.Image, Kind: launcher.KindImageMissing, Images: wanted, Exit: launcher.ExitWhisk}
}

func (s *server) openStore() (*image.Store, error) {
	return image.Open(image.Options{GraphRoot: s.doc.Dirs.Storage(), RunRoot: s.doc.Dirs.StorageRun(), IgnoreChownErrors: s.doc.Single})
}

// allImages gives the id of each app's image. It reports every one that is missing in one error, so that they can be
// pulled together.
func (s *server) allImages(ctx context.Context, specs []launcher.Spec) (map[string]string, error) {
	var all *launcher.Error
	seen, ids := map[launcher.Wanted]string{}, map[string]string{}
	for i := range specs {
		app := &specs[i].App
		wanted := launcher.Wanted{Image: app.Image, Platform: app.Platform}
		if id, ok := seen[wanted]; ok {
			ids[app.Name] = id
			continue
		}
		seen[wanted] = ""
		base, err := s.base(ctx, &specs[i], "")
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
			return nil, appError(app.Name, err)
		}
		seen[wanted], ids[app.Name] = base.ID, base.ID
	}
	if all != nil {
		return nil, all
	}
	return ids, nil
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
