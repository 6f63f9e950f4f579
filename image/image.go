package image

import (
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one image in the store, as it was when it was looked up.
type Image struct {
	ID    string   // digest of the config, 64 hex digits
	Names []string // references in normal form, sorted; empty for an image whose tags have moved on
	// Digest is that of the image's manifest for its platform; it names the same bytes in every registry.
	Digest   digest.Digest
	Created  time.Time // when it was built, as its config says; zero if it does not
	Size     int64     // bytes of its layers' tar streams, unpacked; what it shares with others is counted
	Platform string    // os/arch[/variant]
	Config   ocispec.ImageConfig
	// Healthcheck is nil if the image has none; it is Docker's extension of the OCI config.
	Healthcheck *Healthcheck
	// Layers are the folders to hand to overlayfs as lowerdir, the topmost first, relative to Base: mount(2) takes
	// a page of options at most, so they are short. An image without content has one empty folder.
	Layers []string
	Base   string // absolute folder
}

// Healthcheck is a command that tells whether the app serves, as Docker's HEALTHCHECK wrote it down.
type Healthcheck struct {
	// Test is ["NONE"], ["CMD", argument…] or ["CMD-SHELL", line]; empty means that of the base image.
	Test []string `json:",omitempty"`
	// Interval, Timeout, StartPeriod and StartInterval are zero where the image does not say.
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"` // failures in a row; 0: not said
}
