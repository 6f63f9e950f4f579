package config

import (
	"fmt"
	"path/filepath"
	"strings"
)

// ParseHome reads how the home directory is mounted: ro or rw.
func ParseHome(s string) (string, error) {
	if s == HomeReadOnly || s == HomeReadWrite {
		return s, nil
	}
	return "", fmt.Errorf("home %q: want ro or rw", clip(s))
}

// DefaultSecrets are the paths below a home directory that hold keys, passwords and sessions. Mounts of a folder above
// show them empty.
func DefaultSecrets(home string) []string {
	if home == "" {
		return nil
	}
	var out []string
	for _, s := range defaultSecrets {
		out = append(out, filepath.Join(home, s))
	}
	return out
}

var defaultSecrets = [...]string{
	".ssh", ".gnupg", ".pki", ".password-store",
	".aws", ".azure", ".kube", ".config/gcloud", ".config/doctl", ".terraform.d/credentials.tfrc.json",
	".docker/config.json", ".config/containers/auth.json", ".local/share/containers/auth.json",
	".netrc", ".git-credentials", ".config/git/credentials", ".config/gh", ".config/glab-cli",
	".npmrc", ".pypirc", ".cargo/credentials.toml", ".cargo/credentials", ".gem/credentials", ".m2/settings.xml",
	".pgpass", ".my.cnf", ".vault-token", ".config/rclone", ".config/sops",
	// Browsers and mail: sessions are as good as passwords.
	".mozilla", ".config/mozilla", ".thunderbird", ".config/google-chrome", ".config/google-chrome-beta", ".config/chromium",
	".config/BraveSoftware", ".config/microsoft-edge", ".config/vivaldi", ".config/opera", ".librewolf",
	"snap/firefox", "snap/chromium", ".var/app/org.mozilla.firefox", ".var/app/org.mozilla.Thunderbird",
	".var/app/com.google.Chrome", ".var/app/org.chromium.Chromium", ".var/app/com.brave.Browser",
	// Keyrings and password managers.
	".local/share/keyrings", ".local/share/kwalletd", ".gnome2/keyrings", ".config/keepassxc", ".config/Bitwarden", ".config/1Password", ".config/op",
	// What was typed.
	".bash_history", ".zsh_history", ".local/share/fish/fish_history", ".psql_history",
}

// secretsDefault is the entry of secrets that stands for DefaultSecrets.
const secretsDefault = "default"

// secrets reads the list of config.toml, which takes the default's place unless it names it.
func (d *decoder) secrets(n *node, into *[]string) {
	words, _ := d.words(n, "secrets")
	list := []string{}
	for _, w := range words {
		switch {
		case w == secretsDefault:
			list = append(list, DefaultSecrets(d.home)...)
		case hasControl(w) || !filepath.IsAbs(w) && !strings.HasPrefix(w, "~/"):
			d.fail(n.offset, "", "secrets: %q is neither an absolute path, nor one that begins with ~/, nor %q", clip(w), secretsDefault)
		default:
			path, err := hostPath(w, d.dir, d.home)
			if err != nil {
				d.fail(n.offset, "", "secrets: %v", err)
				continue
			}
			list = append(list, path)
		}
	}
	*into = list
}
