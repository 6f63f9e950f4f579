package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
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
		if c, ok := entryFor(conf, ref); ok {
			return authn.FromConfig(authn.AuthConfig{
				Username: c.Username, Password: c.Password, Auth: c.Auth, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
			}), nil
		}
	}
	return authn.Anonymous, nil
}

// entryFor finds a repository's entry in one file: the closest one written in it, else what the file's credential helper
// knows. A helper that fails leaves the user nobody: most images are public, and if this one is not, the registry's
// refusal says what to do.
func entryFor(conf *configfile.ConfigFile, ref Reference) (types.AuthConfig, bool) {
	for _, key := range authKeys(ref) {
		if c, ok := conf.AuthConfigs[key]; ok && filled(c) {
			return c, true
		}
	}
	for key, c := range conf.AuthConfigs { // old files have URLs: https://example.org/v1/
		if _, rest, ok := strings.Cut(key, "://"); ok && filled(c) {
			if host, _, _ := strings.Cut(rest, "/"); host == ref.domain {
				return c, true
			}
		}
	}
	key := ref.domain
	if key == defaultDomain {
		key = dockerHubKey
	}
	if conf.CredentialsStore == "" && conf.CredentialHelpers[key] == "" {
		return types.AuthConfig{}, false
	}
	c, err := conf.GetAuthConfig(key)
	return c, err == nil && filled(c)
}

// filled tells an entry that says something from one that only stands for a credential helper's.
func filled(c types.AuthConfig) bool {
	c.ServerAddress = ""
	return c != (types.AuthConfig{})
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
