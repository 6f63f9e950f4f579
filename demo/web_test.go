package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// sandboxProc is a proc file system as a sandbox sees it.
func sandboxProc(command string) fs.FS {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	return fstest.MapFS{
		"self/uid_map": file("0 1000 1\n1 100000 65536\n"),
		"self/gid_map": file("0 1000 1\n"),
		"self/status":  file(status),
		"self/mountinfo": file("85 60 0:40 / / ro,nosuid - overlay overlay rw\n" +
			"86 85 254:0 /home/ann/vol /data rw,nosuid,nodev - ext4 /dev/vda rw\n" +
			"87 85 0:22 / /proc rw - proc proc rw\n" +
			"88 87 0:23 /null /proc/kcore rw - tmpfs tmpfs rw\n"),
		"1/comm":      file("whisk\n"),
		"1/cmdline":   file("whisk: init\x00"),
		"2/comm":      file("whisk\n"),
		"2/cmdline":   file("/whisk\x00" + command + "\x00"),
		"uptime":      file("1 1\n"),
		"17/comm":     file("ended\n"), // no cmdline: it ended between the two reads
		"self/nought": file(""),
	}
}

// apps serves both apps over loopback, the store with its counter in dir.
func apps(t *testing.T, dir string, proc fs.FS) (web, store *httptest.Server) {
	t.Helper()
	visits, err := openCounter(dir)
	if err != nil {
		t.Fatal(err)
	}
	store = httptest.NewServer(storeHandler(visits, proc))
	t.Cleanup(store.Close)
	client, err := newStoreClient(store.URL)
	if err != nil {
		t.Fatal(err)
	}
	web = httptest.NewServer(webHandler(client, proc))
	t.Cleanup(web.Close)
	return web, store
}

func get(t *testing.T, method, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestPageShowsBothSandboxes(t *testing.T) {
	web, _ := apps(t, t.TempDir(), sandboxProc("demo-web"))
	resp, body := get(t, http.MethodGet, web.URL)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %s, want 200\n%s", resp.Status, body)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`<article id="web"`, `<article id="store"`, `<strong id="visits">1</strong> visit<`,
		">" + host + "<", "0 → 1000", "1–65536 → 100000–165535",
		"14 of 41: ", "net_bind_service", "<dt>No new privileges</dt><dd>yes</dd>", "<dt>Seccomp</dt><dd>filter (1)</dd>",
		"<dt>Ambient capabilities</dt><dd>none</dd>", "uid 0, gid 7",
		"<code>/dev/vda[/home/ann/vol]</code>", "<td>ro,nosuid</td>", "<summary>1 more inside /proc, /sys and /dev</summary>",
		"<code>/whisk demo-web</code>", "<td>1</td>",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("page lacks %q", want)
		}
	}
	if strings.Contains(body, "ended") {
		t.Error("page shows a process that has ended")
	}
	if t.Failed() {
		t.Log(body)
	}
}

func TestOnlyPagesCount(t *testing.T) {
	dir := t.TempDir()
	web, store := apps(t, dir, sandboxProc("x"))
	for _, c := range []struct {
		method, url string
		status      int
		visits      uint64
	}{
		{http.MethodGet, web.URL + "/", 200, 1},
		{http.MethodHead, web.URL + "/", 200, 1},
		{http.MethodGet, web.URL + "/api", 200, 1},
		{http.MethodGet, web.URL + "/health", 200, 1},
		{http.MethodGet, store.URL + "/health", 200, 1},
		{http.MethodGet, store.URL + "/api", 200, 1},
		{http.MethodGet, store.URL + "/api/visits", 405, 1},
		{http.MethodPost, web.URL + "/", 405, 1},
		{http.MethodGet, web.URL + "/favicon.ico", 404, 1},
		{http.MethodGet, web.URL + "/", 200, 2},
		{http.MethodPost, store.URL + "/api/visits", 200, 3},
	} {
		resp, body := get(t, c.method, c.url)
		kept, err := openCounter(dir)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != c.status || kept.read().Count != c.visits {
			t.Errorf("%s %s: %s and %d visits on disk, want %d and %d\n%s", c.method, c.url, resp.Status, kept.read().Count, c.status, c.visits, body)
		}
	}
}

func TestAPIGoesThereAndBack(t *testing.T) {
	web, _ := apps(t, t.TempDir(), sandboxProc("x"))
	_, body := get(t, http.MethodGet, web.URL+"/api")
	dec := json.NewDecoder(strings.NewReader(body))
	dec.DisallowUnknownFields()
	var r WebReply
	if err := dec.Decode(&r); err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	if r.Web.App != "web" || r.Store == nil || r.Store.Facts.App != "store" || len(r.Store.Facts.Processes) != 2 || r.Error != "" {
		t.Errorf("got %+v", r)
	}
}

func TestPageSaysThatStoreIsAway(t *testing.T) {
	web, store := apps(t, t.TempDir(), sandboxProc("x"))
	store.Close()
	resp, body := get(t, http.MethodGet, web.URL)
	if resp.StatusCode != http.StatusBadGateway || !strings.Contains(body, `role="alert"`) || !strings.Contains(body, "store does not answer: asking store: ") {
		t.Errorf("status %s, want 502 and the reason\n%s", resp.Status, body)
	}
	if !strings.Contains(body, `<article id="web"`) || strings.Contains(body, `<article id="store"`) {
		t.Errorf("want web's sandbox alone\n%s", body)
	}
	if resp, _ := get(t, http.MethodGet, web.URL+"/health"); resp.StatusCode != http.StatusOK {
		t.Errorf("health: %s, want 200", resp.Status)
	}
}

func TestStoreFailureReachesThePage(t *testing.T) {
	dir := t.TempDir()
	web, _ := apps(t, dir, sandboxProc("x"))
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	resp, body := get(t, http.MethodGet, web.URL)
	if resp.StatusCode != http.StatusBadGateway || !strings.Contains(body, "keeping visits: ") {
		t.Errorf("status %s, want 502 with the store's reason\n%s", resp.Status, body)
	}
}

// What a sandbox is called is the user's choice, and what runs in it may be anybody's: none of it may become markup.
func TestPageEscapes(t *testing.T) {
	const evil = `<script>alert("1")</script>&'`
	proc := sandboxProc(evil).(fstest.MapFS)
	proc["self/mountinfo"] = &fstest.MapFile{Data: []byte("1 1 0:1 /" + evil + " /" + evil + " ro - " + evil + " " + evil + " rw\n")}
	proc["2/comm"] = &fstest.MapFile{Data: []byte(evil)}
	facts, err := gather(evil, proc)
	if err != nil {
		t.Fatal(err)
	}
	facts.Hostname = evil
	for name, r := range map[string]WebReply{
		"whole": {Web: facts, Store: &StoreReply{Facts: facts}},
		"error": {Web: facts, Error: evil},
	} {
		got := string(page(r))
		if strings.Contains(got, "<script") || strings.Contains(got, `"1"`) {
			t.Errorf("%s: unescaped\n%s", name, got)
		}
		if !strings.Contains(got, "&lt;script&gt;alert(&#34;1&#34;)") {
			t.Errorf("%s: the text itself is missing\n%s", name, got)
		}
	}
}

// A browser would fetch nothing else even if it were told to; the page must not try either.
func TestPageIsSelfContained(t *testing.T) {
	web, _ := apps(t, t.TempDir(), sandboxProc("x"))
	resp, body := get(t, http.MethodGet, web.URL)
	for _, outside := range []string{"http://www", "https://", "@import", "url(", "<script", "src="} {
		if got := strings.ReplaceAll(body, "http://www.w3.org/2000/svg", ""); strings.Contains(got, outside) {
			t.Errorf("page holds %q", outside)
		}
	}
	if got := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none';") {
		t.Errorf("policy %q", got)
	}
}

func TestStoreURLMustBeOne(t *testing.T) {
	for _, bad := range []string{"", "store:8080", "https://store", "http://", "http://a b"} {
		if err := Web(t.Context(), "127.0.0.1:0", bad); err == nil {
			t.Errorf("%q: got nil, want an error", bad)
		}
	}
}

func TestRunRefusesUnknownStage(t *testing.T) {
	if err := Run(t.Context(), "demo-other", func(string) string { return "" }); err == nil {
		t.Error("got nil, want an error")
	}
}

// The two apps as their processes run them: both listen, answer and leave when told to.
func TestRunServesUntilDone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	port := freePort(t)
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, StageWeb, func(key string) string {
			return map[string]string{"PORT": port, "STORE": "http://127.0.0.1:1"}[key]
		})
	}()
	url := "http://127.0.0.1:" + port + "/health"
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("got %v, want nil", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("still serving 10 s after its end")
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}
