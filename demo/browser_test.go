package demo

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// view is what a person at a browser has before them.
type view struct {
	dom        string // after the browser has read, repaired and laid out the page
	screenshot image.Image
}

// browse opens url in headless Chromium, with a fresh profile, in a window of the given width. Set
// WHISK_SCREENSHOTS to a folder to keep the picture there under name.
func browse(t *testing.T, url, name string, width int, flags ...string) view {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("the demo's page is tested in a browser, and chromium is missing; run: apt-get install -y chromium")
	}
	dir := t.TempDir()
	shot := filepath.Join(dir, "page.png")
	// Far above the 2 s that a busy machine of two cores takes.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, chromium, append([]string{
		"--headless",
		"--no-sandbox", // user namespaces may be used up or closed where the suite runs; the page is our own
		"--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
		"--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--user-data-dir=" + filepath.Join(dir, "profile"),
		fmt.Sprintf("--window-size=%d,1600", width),
		"--screenshot=" + shot,
		"--dump-dom",
	}, append(flags, url)...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("running chromium on %s: %v\n%s", url, err, &stderr)
	}
	text, err := os.ReadFile(shot)
	if err != nil {
		t.Fatalf("chromium wrote no picture: %v\n%s", err, &stderr)
	}
	if keep := os.Getenv("WHISK_SCREENSHOTS"); keep != "" {
		if err := os.WriteFile(filepath.Join(keep, name+".png"), text, 0o644); err != nil {
			t.Error(err)
		}
	}
	picture, err := png.Decode(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("reading chromium's picture: %v", err)
	}
	return view{dom: stdout.String(), screenshot: picture}
}

// read finds what is written in the element with that id, or fails.
func (v view) read(t *testing.T, id string) string {
	t.Helper()
	m := regexp.MustCompile(`id="` + regexp.QuoteMeta(id) + `"[^>]*>([^<]*)<`).FindStringSubmatch(v.dom)
	if m == nil {
		t.Fatalf("no element %q on the page:\n%s", id, v.dom)
	}
	return html.UnescapeString(m[1])
}

// colours counts the distinct colours of the picture on a grid of 2 × 2 pixels: a blank page has one.
func (v view) colours() int {
	seen := map[[3]uint32]bool{}
	b := v.screenshot.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y += 2 {
		for x := b.Min.X; x < b.Max.X; x += 2 {
			r, g, bl, _ := v.screenshot.At(x, y).RGBA()
			seen[[3]uint32{r, g, bl}] = true
		}
	}
	return len(seen)
}

// brightness of the page's ground, 0 to 255, in its upper left corner.
func (v view) brightness() uint32 {
	r, g, b, _ := v.screenshot.At(2, 2).RGBA()
	return (r + g + b) / 3 >> 8
}

func TestBrowserReadsThePage(t *testing.T) {
	web, _ := apps(t, t.TempDir(), sandboxProc("demo-web"))
	for visit, c := range []struct {
		name  string
		width int
		flags []string
		dark  bool
	}{
		{name: "light", width: 1280},
		{name: "dark", width: 1280, flags: []string{"--blink-settings=preferredColorScheme=0"}, dark: true},
		{name: "narrow", width: 500},
	} {
		v := browse(t, web.URL, c.name, c.width, c.flags...)
		if got, want := v.read(t, "visits"), fmt.Sprint(visit+1); got != want {
			t.Errorf("%s: counter shows %q, want %q", c.name, got, want)
		}
		if got := v.read(t, "store-name"); got != "store" {
			t.Errorf("%s: second sandbox is called %q", c.name, got)
		}
		// Text drawn with smoothed edges has dozens of shades; a page whose style was refused has few, a blank one has one.
		if n := v.colours(); n < 20 {
			t.Errorf("%s: the picture has %d colours; is anything drawn?", c.name, n)
		}
		if got := v.brightness(); (got < 80) != c.dark {
			t.Errorf("%s: ground has brightness %d of 255", c.name, got)
		}
	}
}

// A style that is not the page's own, byte for byte, must have no effect: the policy's hash is what keeps it out.
func TestBrowserRefusesForeignStyle(t *testing.T) {
	web, _ := apps(t, t.TempDir(), sandboxProc("x"))
	resp, body := get(t, http.MethodGet, web.URL)
	foreign := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, key := range []string{"Content-Type", "Content-Security-Policy"} {
			w.Header().Set(key, resp.Header.Get(key))
		}
		fmt.Fprint(w, strings.Replace(body, "</style>", "html{background:#000}</style>", 1))
	}))
	defer foreign.Close()
	if got := browse(t, foreign.URL, "foreign-style", 800).brightness(); got != 255 {
		t.Errorf("ground has brightness %d of 255, want the browser's own white", got)
	}
}
