package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// whisk runs whisk itself and returns its standard output.
func whisk(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Getenv(envBinary), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("whisk %s: %v\n%s%s", strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}

// whisk demo, as the README's first command has it, twice: the page says what the kernel says of two real sandboxes,
// and the counter outlives them.
func TestDemoInRealSandboxes(t *testing.T) {
	t.Cleanup(func() {
		// The test's own context has ended by now. An error here means that nothing was left to stop.
		_ = exec.Command(os.Getenv(envBinary), "demo", "--stop").Run()
	})
	for run := 1; run <= 2; run++ {
		url := pageURL(t, whisk(t, "demo", "-d", "--port", "0"))

		v := browse(t, url, fmt.Sprintf("sandboxes-%d", run), 1280)
		if got, want := v.read(t, "visits"), fmt.Sprint(run); got != want {
			t.Errorf("run %d: counter shows %q, want %q", run, got, want)
		}

		var r WebReply
		resp, body := get(t, http.MethodGet, url+"api")
		if err := json.Unmarshal([]byte(body), &r); err != nil || resp.StatusCode != http.StatusOK || r.Store == nil {
			t.Fatalf("run %d: /api: %s, %v\n%s", run, resp.Status, err, body)
		}
		checkSandbox(t, r.Web)
		checkSandbox(t, r.Store.Facts)
		for _, p := range r.Web.Addresses {
			if slices.Contains(r.Store.Facts.Addresses, p) {
				t.Errorf("run %d: both sandboxes have %s", run, p)
			}
			if !strings.Contains(v.dom, p.String()) {
				t.Errorf("run %d: the page lacks web's address %s", run, p)
			}
		}
		if !slices.ContainsFunc(r.Store.Facts.Mounts, func(m Mount) bool { return m.Point == dataDir && !m.ReadOnly }) {
			t.Errorf("run %d: store has no volume: %+v", run, r.Store.Facts.Mounts)
		}
		whisk(t, "demo", "--stop")
		if resp, err := http.Get(url + "health"); err == nil {
			resp.Body.Close()
			t.Errorf("run %d: the page still answers after demo --stop: %s", run, resp.Status)
		}
	}
}

// pageURL finds the address that demo -d printed.
func pageURL(t *testing.T, stdout string) string {
	t.Helper()
	for word := range strings.FieldsSeq(stdout) {
		if strings.HasPrefix(word, "http://127.0.0.1:") {
			return strings.TrimSuffix(word, "/") + "/"
		}
	}
	t.Fatalf("whisk demo -d printed no address:\n%s", stdout)
	return ""
}

// checkSandbox holds what an app found out against what whisk promises of every sandbox.
func checkSandbox(t *testing.T, f Facts) {
	t.Helper()
	if f.Hostname != f.App {
		t.Errorf("%s: host name %q", f.App, f.Hostname)
	}
	var v4, v6 bool
	for _, p := range f.Addresses {
		v4 = v4 || p.Addr().Is4()
		v6 = v6 || p.Addr().Is6()
	}
	if !v4 || !v6 {
		t.Errorf("%s: addresses %v, want IPv4 and IPv6", f.App, f.Addresses)
	}
	if len(f.UIDMap) == 0 || f.UIDMap[0] != (IDRange{Inside: 0, Outside: uint32(os.Getuid()), Count: 1}) {
		t.Errorf("%s: uid map %v, want 0 to be %d outside", f.App, f.UIDMap, os.Getuid())
	}
	if !f.Rights.NoNewPrivs || f.Rights.Seccomp != "filter" || len(f.Rights.Ambient) != 0 || slices.Contains(f.Rights.Bounding, "SYS_ADMIN") {
		t.Errorf("%s: rights %+v", f.App, f.Rights)
	}
	if len(f.Processes) == 0 || f.Processes[0].PID != 1 || len(f.Processes) > 3 {
		t.Errorf("%s: processes %+v, want process 1 and the app", f.App, f.Processes)
	}
	if !slices.ContainsFunc(f.Mounts, func(m Mount) bool { return m.Point == "/" && m.ReadOnly }) {
		t.Errorf("%s: no read-only root among %+v", f.App, f.Mounts)
	}
}
