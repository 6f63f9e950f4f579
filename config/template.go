package config

import (
	"fmt"
	"path/filepath"
)

// Template returns the whisk.toml that whisk init writes into dir: it loads as it stands, and each of its commented
// lines may be uncommented. The project's name is DefaultName's for dir.
func Template(dir string) []byte {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return fmt.Appendf(nil, template, DefaultName(dir))
}

const template = `# The apps of this project. "whisk up" starts them, "whisk down" stops them. docs/whisk.toml.md has every key.

name = "%s"

# An app runs from an image, in a sandbox with its own IP address. Other apps reach it by its name: http://web
[app.web]
image = "docker.io/library/nginx:1.27"
ports = ["8080:80"]                              # 127.0.0.1:8080 on this machine; "0.0.0.0:8080:80" for all its addresses
# mounts = ["./site:/usr/share/nginx/html:ro"]   # a folder of this one; "~/notes:/notes" or a volume, "cache:/var/cache/nginx"
# env = { TZ = "Asia/Tokyo" }                    # "${NAME:-default}" takes a value from the environment or from .env
# depends_on = ["db"]                            # started when db is ready

# [app.db]
# image = "docker.io/library/postgres:17"
# env = { POSTGRES_PASSWORD = "dev" }
# mounts = ["pgdata:/var/lib/postgresql/data"]   # a volume: its data outlives "whisk down"
# ready = { tcp = 5432 }                         # or http = ":80/health", cmd = ["pg_isready"], log = "ready to accept"

# What apps may reach outside the project's network: "all", "internet", "none", or a list such as ["api.example.com"].
# [network]
# egress = "none"

# Volumes come into being when they are mounted; a table gives one labels, or says that others share it.
# [volume.pgdata]
# labels = { keep = "yes" }
`
