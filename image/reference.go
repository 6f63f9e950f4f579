package image

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Docker's names for its own registry.
const (
	defaultDomain    = "docker.io"
	legacyDomain     = "index.docker.io"
	officialPrefix   = "library/"
	defaultTag       = "latest"
	maxRepository    = 255
	maxTag           = 128
	digestHexLengths = "sha256 or sha512"
)

// Reference names an image as Docker reads names: domain/path, and a tag, a digest or both. The zero value is not
// a reference.
type Reference struct {
	domain, path, tag string
	digest            digest.Digest
}

// ReferenceError says what is wrong with a name.
type ReferenceError struct{ Name, Why string }

// Error implements error.
func (e *ReferenceError) Error() string {
	return fmt.Sprintf("image name %q: %s", e.Name, e.Why)
}

// ParseReference reads a name in Docker's form: "nginx" is docker.io/library/nginx:latest. A first part is a
// registry when it has a dot or a colon, or is localhost. The error is a *ReferenceError.
func ParseReference(s string) (Reference, error) {
	bad := func(why string) (Reference, error) { return Reference{}, &ReferenceError{s, why} }
	rest := s
	var r Reference
	if s == "" {
		return bad("it is empty")
	}
	if name, d, ok := strings.Cut(rest, "@"); ok {
		r.digest = digest.Digest(d)
		if err := r.digest.Validate(); err != nil {
			return bad("the digest after @ is not " + digestHexLengths)
		}
		rest = name
	}
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.Contains(rest[i:], "/") {
		r.tag = rest[i+1:]
		rest = rest[:i]
		if !validTag(r.tag) {
			return bad(fmt.Sprintf("the tag %q is not letters, digits, _ . - (at most %d)", r.tag, maxTag))
		}
	}
	if r.tag == "" && r.digest == "" {
		r.tag = defaultTag
	}
	r.domain, r.path = defaultDomain, rest
	if first, more, ok := strings.Cut(rest, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost" || strings.ToLower(first) != first) {
		r.domain, r.path = first, more
		if !validDomain(first) {
			return bad(fmt.Sprintf("%q is not a registry's host[:port]", first))
		}
	}
	if r.domain == legacyDomain {
		r.domain = defaultDomain
	}
	if r.domain == defaultDomain && !strings.Contains(r.path, "/") {
		r.path = officialPrefix + r.path
	}
	if len(r.path) > maxRepository {
		return bad(fmt.Sprintf("the repository is longer than %d", maxRepository))
	}
	if strings.ToLower(r.path) != r.path {
		return bad("the repository must be lower case: " + strings.ToLower(strings.TrimPrefix(r.path, officialPrefix)))
	}
	for part := range strings.SplitSeq(r.path, "/") {
		if !validComponent(part) {
			return bad(fmt.Sprintf("%q is not a repository name (lower-case letters and digits, with . _ - between)", part))
		}
	}
	return r, nil
}

// validComponent is distribution's path-component: [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*.
func validComponent(s string) bool {
	alnum := func(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
	if s == "" || !alnum(s[0]) || !alnum(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); {
		if alnum(s[i]) {
			i++
			continue
		}
		j := i
		for j < len(s) && !alnum(s[j]) {
			j++
		}
		if sep := s[i:j]; sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" {
			return false
		}
		i = j
	}
	return true
}

func validTag(s string) bool {
	if s == "" || len(s) > maxTag || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

func validDomain(s string) bool {
	host, port := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 || strings.Trim(s[1:end], "0123456789abcdefABCDEF:.") != "" {
			return false
		}
		if s[end+1:] == "" {
			return true
		}
		if s[end+1] != ':' {
			return false
		}
		port = s[end+2:]
	} else {
		var ok bool
		if host, port, ok = strings.Cut(s, ":"); ok && port == "" {
			return false
		}
		for label := range strings.SplitSeq(host, ".") {
			if label == "" || label[0] == '-' || label[len(label)-1] == '-' || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
				return false
			}
		}
	}
	return len(port) <= 5 && strings.Trim(port, "0123456789") == ""
}

// Domain is the registry's host[:port].
func (r Reference) Domain() string { return r.domain }

// Path is the repository at the registry.
func (r Reference) Path() string { return r.path }

// Tag is the tag, empty for a reference by digest only.
func (r Reference) Tag() string { return r.tag }

// Digest is the manifest's digest, empty if the reference has none.
func (r Reference) Digest() digest.Digest { return r.digest }

// String is the full form: docker.io/library/nginx:latest.
func (r Reference) String() string { return r.withSuffix(r.domain + "/" + r.path) }

// Familiar is the short form that people write: nginx:latest.
func (r Reference) Familiar() string {
	name := r.domain + "/" + r.path
	if r.domain == defaultDomain {
		name = strings.TrimPrefix(r.path, officialPrefix)
	}
	return r.withSuffix(name)
}

func (r Reference) withSuffix(name string) string {
	if r.tag != "" {
		name += ":" + r.tag
	}
	if r.digest != "" {
		name += "@" + r.digest.String()
	}
	return name
}
