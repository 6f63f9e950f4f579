package mend

import (
	"io/fs"
	"slices"
	"strings"
)

// Loosen makes a container around whisk, or else a service, let sandboxes be built.
func Loosen(container bool) string {
	if !container {
		return "start whisk outside of the service that withholds it (RestrictNamespaces=, SystemCallFilter= and ProtectProc= of systemd.exec(5))"
	}
	return "start the outer container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined (podman: --security-opt unmask=ALL)"
}

// Container is the engine that the container around whisk is of; empty outside of one. root are the machine's files; pod says
// that Kubernetes has started this, which leaves no file behind but a variable.
func Container(root fs.FS, pod bool) string {
	has := func(path string) bool { _, err := fs.Stat(root, path); return err == nil }
	text := func(path string) string {
		b, err := fs.ReadFile(root, path)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	switch {
	case has("run/.containerenv"):
		return "podman"
	case has(".dockerenv"):
		return "docker"
	case pod || has("var/run/secrets/kubernetes.io"):
		return "kubernetes"
	}
	if kind := text("run/systemd/container"); kind != "" { // systemd's Container Interface
		return kind
	}
	group := text("proc/1/cgroup") // of version 1, or where it is seen from the host
	for _, kind := range []string{"docker", "kubepods", "libpod", "containerd", "lxc"} {
		if strings.Contains(group, "/"+kind) {
			return kind
		}
	}
	if ids := strings.Fields(text("proc/self/uid_map")); len(ids) > 0 && !slices.Equal(ids, []string{"0", "0", "4294967295"}) {
		return "a user namespace"
	}
	return ""
}
