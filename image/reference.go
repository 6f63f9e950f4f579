package image

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// What a reference means when it does not say so.
const (
	defaultDomain = "docker.io"
	legacyDomain  = "index.docker.io" // the same registry under its oldest name
	officialRepo  = "library/"        // images of docker.io without a user's name
	defaultTag    = "latest"
)

// Lengths that registries enforce (distribution spec, "pulling manifests").
const (
	maxNameLength = 255
	maxTagLength  = 128
)

// Reference names an image in a registry: domain/path[:tag][@digest], as Docker normalises it. It always has a tag, a
// digest or both. The zero value names nothing; ParseReference is the only way to make one.
type Reference struct {
	domain, path, tag string
	digest            digest.Digest
}

// ParseReference reads a reference in the form that docker and podman take: nginx is docker.io/library/nginx:latest.
func ParseReference(s string) (Reference, error) {
	r, err := parseReference(s)
	if err != nil {
		return Reference{}, fmt.Errorf("invalid image reference %q: %w", s, err)
	}
	return r, nil
}

func parseReference(s string) (Reference, error) {
	var r Reference
	if s == "" {
		return r, errors.New("it is empty")
	}
	rest, sum, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		r.digest = digest.Digest(sum)
		if err := r.digest.Validate(); err != nil {
			return r, fmt.Errorf("%q is not a digest such as sha256:<64 hex digits>", sum)
		}
	}
	// A colon after the last slash begins a tag; one before it belongs to the registry's port.
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.ContainsRune(rest[i:], '/') {
		r.tag = rest[i+1:]
		rest = rest[:i]
		if !validTag(r.tag) {
			return r, fmt.Errorf("tag %q must be 1 to %d letters, digits, '_', '.' or '-', and not begin with '.' or '-'", r.tag, maxTagLength)
		}
	}
	if r.tag == "" && !hasDigest {
		r.tag = defaultTag
	}
	if !hasDigest && isHexID(rest) {
		return r, errors.New("64 hexadecimal digits are an image's id, not a name")
	}
	r.domain, r.path = splitDomain(rest)
	if err := checkDomain(r.domain); err != nil {
		return r, err
	}
	if err := checkPath(r.path); err != nil {
		return r, err
	}
	if len(r.domain)+1+len(r.path) > maxNameLength {
		return r, fmt.Errorf("the name is longer than %d characters", maxNameLength)
	}
	return r, nil
}

// splitDomain tells a registry from the first part of a path as Docker does: it has a dot, a port or an upper-case
// letter, or is localhost.
func splitDomain(name string) (domain, path string) {
	first, rest, ok := strings.Cut(name, "/")
	switch {
	case !ok:
		domain, path = defaultDomain, name
	case strings.ContainsAny(first, ".:") || first == "localhost" || strings.ToLower(first) != first:
		domain, path = first, rest
	default:
		domain, path = defaultDomain, name
	}
	if domain == legacyDomain {
		domain = defaultDomain
	}
	if domain == defaultDomain && path != "" && !strings.Contains(path, "/") {
		path = officialRepo + path
	}
	return domain, path
}

func checkDomain(domain string) error {
	host, port, hasPort := domain, "", false
	if strings.HasPrefix(domain, "[") { // an IPv6 address
		end := strings.IndexByte(domain, ']')
		if end < 0 {
			return fmt.Errorf("registry %q: the bracket is not closed", domain)
		}
		host = domain[1:end]
		if rest := domain[end+1:]; rest != "" {
			if rest[0] != ':' {
				return fmt.Errorf("registry %q: what follows the address is not a port", domain)
			}
			port, hasPort = rest[1:], true
		}
		if host == "" || strings.Trim(host, "0123456789abcdefABCDEF:") != "" {
			return fmt.Errorf("registry %q: %q is not an IPv6 address", domain, host)
		}
	} else {
		host, port, hasPort = strings.Cut(domain, ":")
		for label := range strings.SplitSeq(host, ".") {
			if label == "" || label[0] == '-' || label[len(label)-1] == '-' || !all(label, func(c byte) bool { return lower(c) || upper(c) || number(c) || c == '-' }) {
				return fmt.Errorf("registry %q: %q is not a host name", domain, host)
			}
		}
	}
	if hasPort && (port == "" || len(port) > 5 || !all(port, number)) {
		return fmt.Errorf("registry %q: %q is not a port", domain, port)
	}
	return nil
}

// checkPath checks the components of a repository's path: lower-case letters and digits, with '.', '_', '__' or any
// number of '-' between them.
func checkPath(path string) error {
	if path == "" {
		return errors.New("the repository's name is missing")
	}
	if strings.ToLower(path) != path {
		return fmt.Errorf("repository %q must be lower case", path)
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" {
			return fmt.Errorf("repository %q has an empty part", path)
		}
		alnum := func(c byte) bool { return lower(c) || number(c) }
		if !alnum(part[0]) || !alnum(part[len(part)-1]) {
			return fmt.Errorf("repository %q: %q must begin and end with a letter or digit", path, part)
		}
		for i := 0; i < len(part); {
			if alnum(part[i]) {
				i++
				continue
			}
			end := i
			for end < len(part) && !alnum(part[end]) {
				end++
			}
			switch sep := part[i:end]; {
			case sep == ".", sep == "_", sep == "__", strings.Trim(sep, "-") == "":
			default:
				return fmt.Errorf("repository %q: %q may not stand in a name", path, sep)
			}
			i = end
		}
	}
	return nil
}

func validTag(tag string) bool {
	if tag == "" || len(tag) > maxTagLength || tag[0] == '.' || tag[0] == '-' {
		return false
	}
	return all(tag, func(c byte) bool { return lower(c) || upper(c) || number(c) || c == '_' || c == '.' || c == '-' })
}

func isHexID(s string) bool { return len(s) == 64 && isHex(s) }

func isHex(s string) bool {
	return s != "" && all(s, func(c byte) bool { return number(c) || c >= 'a' && c <= 'f' })
}

func all(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) bool  { return c >= 'a' && c <= 'z' }
func upper(c byte) bool  { return c >= 'A' && c <= 'Z' }
func number(c byte) bool { return c >= '0' && c <= '9' }

// Domain is the registry's host[:port]: "docker.io".
func (r Reference) Domain() string { return r.domain }

// Path is the repository in the registry: "library/nginx".
func (r Reference) Path() string { return r.path }

// Tag is the tag, or empty if there is a digest only.
func (r Reference) Tag() string { return r.tag }

// Digest is the digest, or empty.
func (r Reference) Digest() digest.Digest { return r.digest }

// Repository is the name without tag and digest: "docker.io/library/nginx".
func (r Reference) Repository() string { return r.domain + "/" + r.path }

// String is the whole reference in normal form; ParseReference reads it back to an equal value.
func (r Reference) String() string {
	if r.path == "" {
		return ""
	}
	return r.suffixed(r.Repository())
}

// Familiar is the short form that people type: "nginx:latest". ParseReference reads it back to an equal value.
func (r Reference) Familiar() string {
	if r.path == "" {
		return ""
	}
	if r.domain == defaultDomain {
		// A short form may be read as something else: library/a/b, or a part that looks like a registry.
		for _, short := range []string{strings.TrimPrefix(r.path, officialRepo), r.path} {
			if d, p := splitDomain(short); d == r.domain && p == r.path && !isHexID(short) {
				return r.suffixed(short)
			}
		}
	}
	return r.suffixed(r.Repository())
}

func (r Reference) suffixed(name string) string {
	if r.tag != "" {
		name += ":" + r.tag
	}
	if r.digest != "" {
		name += "@" + r.digest.String()
	}
	return name
}

// stored is the name under which a pulled image is kept: with a digest, the tag says nothing more.
func (r Reference) stored() string {
	if r.digest != "" {
		r.tag = ""
	}
	return r.String()
}
