package image

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParseReferenceReadsNamesAsDockerDoes(t *testing.T) {
	for in, want := range map[string]string{
		"nginx":                                "docker.io/library/nginx:latest",
		"nginx:1.27":                           "docker.io/library/nginx:1.27",
		"docker.io/nginx":                      "docker.io/library/nginx:latest",
		"index.docker.io/library/nginx":        "docker.io/library/nginx:latest",
		"ann/app":                              "docker.io/ann/app:latest",
		"localhost/app":                        "localhost/app:latest",
		"localhost:5000/app:1":                 "localhost:5000/app:1",
		"[::1]:5000/app":                       "[::1]:5000/app:latest",
		"UPPER/app":                            "UPPER/app:latest",
		"quay.io/a/b/c:v1":                     "quay.io/a/b/c:v1",
		"nginx@" + someDigest:                  "docker.io/library/nginx@" + someDigest,
		"nginx:1@" + someDigest:                "docker.io/library/nginx:1@" + someDigest,
		"a__b/c.d-e---f":                       "docker.io/a__b/c.d-e---f:latest",
		"example.org:80/" + "a:Tag_with.Dot-1": "example.org:80/a:Tag_with.Dot-1",
	} {
		ref, err := ParseReference(in)
		if err != nil || ref.String() != want {
			t.Errorf("ParseReference(%q) = %v, %v; want %s", in, ref, err, want)
		}
	}
}

func TestParseReferenceRefuses(t *testing.T) {
	for in, why := range map[string]string{
		"": "empty", "Nginx": "lower case", "nginx:": "tag", "nginx:.x": "tag", "nginx:" + strings.Repeat("a", 129): "tag",
		"nginx@sha256:12": "digest", "a//b": "empty part", "/a": "", "a/": "empty part", "-a": "begin", "a_-b": "may not", "a..b": "may not",
		"host:port/a": "port", "ho_st.x/a": "host name", "[::1/a": "bracket", strings.Repeat("a", 64): "id", strings.Repeat("b/", 150) + "c": "longer",
		"docker.io/": "missing", "a b": "", "a\x00b": "", "https://docker.io/nginx": "",
	} {
		if ref, err := ParseReference(in); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("ParseReference(%q) = %v, %v; want an error about %q", in, ref, err, why)
		}
	}
}

func TestFamiliarIsWhatPeopleType(t *testing.T) {
	for in, want := range map[string]string{
		"docker.io/library/nginx:latest": "nginx:latest", "docker.io/ann/app:1": "ann/app:1", "quay.io/x:1": "quay.io/x:1",
		"docker.io/library/a/b:1": "library/a/b:1", "docker.io/library/localhost/b:1": "library/localhost/b:1",
	} {
		ref, err := ParseReference(in)
		if err != nil || ref.Familiar() != want {
			t.Errorf("Familiar(%q) = %q, %v; want %q", in, ref.Familiar(), err, want)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"nginx", "a/b:c", "localhost:5000/a@" + someDigest, "[::1]/x", "docker.io/library/a/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := ParseReference(s)
		if err != nil {
			return
		}
		for _, form := range []string{ref.String(), ref.Familiar()} {
			again, err := ParseReference(form)
			if err != nil || again != ref {
				t.Fatalf("%q is %q, which is read as %v, %v", s, form, again, err)
			}
		}
		if ref.Digest() != "" && digest.Digest(ref.Digest()).Validate() != nil || ref.Digest() == "" && ref.Tag() == "" {
			t.Fatalf("%q: %#v", s, ref)
		}
	})
}
