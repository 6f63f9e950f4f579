package demo

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Web is the app with the page. It asks the store at storeURL ("http://store:8080") and listens on addr (host:port)
// until ctx is done:
//
//	GET /        the page; counts a visit
//	GET /api     WebReply, counts nothing
//	GET /health  200 "ok", whether the store answers or not
//
// Where the store does not answer, the page says so with status 502 and shows this sandbox alone.
func Web(ctx context.Context, addr, storeURL string) error {
	store, err := newStoreClient(storeURL)
	if err != nil {
		return fmt.Errorf("starting web: %w", err)
	}
	fmt.Printf("web: listening on %s, store at %s\n", addr, storeURL)
	if err := serve(ctx, addr, webHandler(store, os.DirFS("/proc"))); err != nil {
		return fmt.Errorf("serving web: %w", err)
	}
	return nil
}

// WebReply is what the web app answers at /api.
type WebReply struct {
	Web   Facts       `json:"web"`
	Store *StoreReply `json:"store,omitempty"` // nil when the store does not answer
	Error string      `json:"error,omitempty"` // why it does not
}

func webHandler(store *storeClient, proc fs.FS) http.Handler {
	// Nothing but the page's own style may have an effect, whatever a mount or a process is called.
	sum := sha256.Sum256([]byte(style))
	policy := "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; img-src data:; style-src 'sha256-" +
		base64.StdEncoding.EncodeToString(sum[:]) + "'"

	look := func(ctx context.Context, method, path string) (WebReply, int, error) {
		facts, err := gather("web", proc)
		if err != nil {
			return WebReply{}, http.StatusInternalServerError, err
		}
		r := WebReply{Web: facts}
		reply, err := store.ask(ctx, method, path)
		if err != nil {
			r.Error = err.Error()
			fmt.Fprintln(os.Stderr, err)
			return r, http.StatusBadGateway, nil
		}
		r.Store = &reply
		return r, http.StatusOK, nil
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", health)
	mux.HandleFunc("GET /api", func(w http.ResponseWriter, req *http.Request) {
		r, status, err := look(req.Context(), http.MethodGet, "/api")
		if err != nil {
			fail(w, err)
			return
		}
		writeJSON(w, status, r)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, req *http.Request) {
		method, path := http.MethodPost, "/api/visits"
		if req.Method == http.MethodHead {
			method, path = http.MethodGet, "/api" // who asks for the header alone has seen nothing
		}
		r, status, err := look(req.Context(), method, path)
		if err != nil {
			fail(w, err)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, string(page(r))) // fails only for a client that has gone
	})
	return mux
}

// storeClient asks the store.
type storeClient struct {
	base string
	http *http.Client
}

func newStoreClient(base string) (*storeClient, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("reading the store's URL: %w", err)
	}
	if u.Scheme != "http" || u.Host == "" {
		return nil, fmt.Errorf("reading the store's URL %q: want http://name:port", base)
	}
	return &storeClient{
		base: strings.TrimSuffix(base, "/"),
		http: &http.Client{
			// A transport of its own: the default one would obey HTTP_PROXY, and store is next door.
			Transport: &http.Transport{},
			// One visit is one synced write, well below a second even on a slow disk; a person waits no longer.
			Timeout: 5 * time.Second,
		},
	}, nil
}

func (c *storeClient) ask(ctx context.Context, method, path string) (StoreReply, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, nil)
	if err != nil {
		return StoreReply{}, fmt.Errorf("asking store: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return StoreReply{}, fmt.Errorf("asking store: %w", err)
	}
	defer resp.Body.Close()
	// A reply is some kilobytes; a store that sends without end must not fill this sandbox's memory.
	dec := json.NewDecoder(io.LimitReader(resp.Body, 4<<20))
	if resp.StatusCode != http.StatusOK {
		var f fault
		if dec.Decode(&f) != nil || f.Error == "" {
			f.Error = resp.Status
		}
		return StoreReply{}, fmt.Errorf("asking store: %w", errors.New(f.Error))
	}
	var r StoreReply
	if err := dec.Decode(&r); err != nil {
		return StoreReply{}, fmt.Errorf("reading the store's reply: %w", err)
	}
	return r, nil
}
