package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	for name, c := range map[string]struct{ page, want string }{
		"blocks":   {"<h1>Two\nwords</h1><p>one <b>bold</b> line</p>", "Two words\none bold line\n"},
		"terms":    {"<dl><div><dt>IP</dt><dd><span>10.0.0.2</span><span>fd00::2</span></dd></div></dl>", "IP 10.0.0.2 fd00::2\n"},
		"unseen":   {"<head><title>t</title></head><style>p{}</style><!-- x --><p>seen</p><details><p>folded</p></details><table><tr><td>1</td></tr></table>", "seen\n"},
		"entities": {"<p>a &lt; b</p>", "a < b\n"},
	} {
		if got := text(c.page); got != c.want {
			t.Errorf("%s: text(%q) = %q, want %q", name, c.page, got, c.want)
		}
	}
}

func TestGlanceTellsOfErrors(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	var b strings.Builder
	if err := glance(&b, s.URL); err == nil || b.Len() > 0 {
		t.Errorf("glance of a missing page: %v, wrote %q; want an error and nothing", err, b.String())
	}
}
