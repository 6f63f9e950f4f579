package launcher

import (
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Base is what a sandbox's root file system is laid over: an image's layers, or the machine's own root.
type Base struct {
	Name   string   // as the user wrote it, or in full
	ID     string   // of the image; empty for built-in images
	Digest string   // of the manifest, if known
	Dir    string   // where relative names in Layers start
	Layers []string // overlay lowerdir names, topmost first; see overlayfs documentation
	Config imagespec.ImageConfig
	// Host says that the base is the machine's own root, with homes, run-time sockets and temporary files hidden;
	// Layers is not used then.
	Host bool
	// Binds are files of the host that the base needs, read-only: host path by sandbox path.
	Binds map[string]string
}
