package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
)

// dockerHubKey is how Docker writes its own registry in config.json, for historical reasons.
const dockerHubKey = "https://index.docker.io/v1/"

// authFiles are where docker login and podman login leave credentials, in the order in which they are asked: what the
// user names by a variable, what lasts as long as the session, what lasts.
func authFiles(getenv func(string) string) []string {
	var files []string
	add := func(dir string, rest ...string) {
		if dir != "" {
			files = append(files, filepath.Join(append([]string{dir}, rest...)...))
		}
	}
	home := getenv("HOME")
	add(getenv("REGISTRY_AUTH_FILE"))
	add(getenv("DOCKER_CONFIG"), "config.json")
	add(getenv("XDG_RUNTIME_DIR"), "containers", "auth.json")
	if dir := getenv("XDG_CONFIG_HOME"); dir != "" {
		add(dir, "containers", "auth.json")
	} else {
		add(home, ".config", "containers", "auth.json")
	}
	add(home, ".docker", "config.json")
	return files
}

// credentials finds who the user is to a repository's registry: the first file with an entry for it counts. Nobody in
// particular is no error; a file that cannot be read is.
func credentials(ref Reference, files []string) (authn.Authenticator, error) {
	for _, file := range files {
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading credentials: %w", err)
		}
		conf, err := config.LoadFromReader(f)
		f.Close()
		if err != nil {
			return nil, &Error{Message: fmt.Sprintf("credentials file %q cannot be read: %s", file, rootCause(err)), Remedy: "mend it, or log in again", Err: err}
		}
		for _, key := range authKeys(ref) {
			// A credential helper that fails leaves the user nobody: most images are public, and if this
			// one is not, the registry's refusal says what to do.
			c, err := conf.GetAuthConfig(key)
			c.ServerAddress = "" // it is set for entries that are not there, too
			if err == nil && c != (types.AuthConfig{}) {
				return authn.FromConfig(authn.AuthConfig{
					Username: c.Username, Password: c.Password, Auth: c.Auth, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
				}), nil
			}
		}
	}
	return authn.Anonymous, nil
}

// authKeys are the names under which a file may have a repository's credentials, the closest first
// (containers-auth.json(5): an entry may be for a namespace or one repository).
func authKeys(ref Reference) []string {
	var keys []string
	for path := ref.Repository(); strings.Contains(path, "/"); path = path[:strings.LastIndexByte(path, '/')] {
		keys = append(keys, path)
	}
	keys = append(keys, ref.domain)
	if ref.domain == defaultDomain {
		keys = append(keys, dockerHubKey, legacyDomain)
	}
	return keys
}
