package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"time"
)

// Store is the app that keeps the visit counter in dataDir, a folder that exists. It listens on addr (host:port) until
// ctx is done:
//
//	GET  /health      200 "ok"
//	GET  /api         StoreReply, counts nothing
//	POST /api/visits  StoreReply after one more visit, which is on disk by then
func Store(ctx context.Context, addr, dataDir string) error {
	visits, err := openCounter(dataDir)
	if err != nil {
		return fmt.Errorf("starting store: %w", err)
	}
	fmt.Printf("store: listening on %s, %d visits so far\n", addr, visits.read().Count)
	if err := serve(ctx, addr, storeHandler(visits, os.DirFS("/proc"))); err != nil {
		return fmt.Errorf("serving store: %w", err)
	}
	return nil
}

// StoreReply is what the store answers.
type StoreReply struct {
	Visits Visits `json:"visits"`
	Facts  Facts  `json:"facts"`
}

func storeHandler(visits *counter, proc fs.FS) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", health)
	reply := func(w http.ResponseWriter, v Visits) {
		facts, err := gather("store", proc)
		if err != nil {
			fail(w, err)
			return
		}
		writeJSON(w, http.StatusOK, StoreReply{Visits: v, Facts: facts})
	}
	mux.HandleFunc("GET /api", func(w http.ResponseWriter, _ *http.Request) { reply(w, visits.read()) })
	mux.HandleFunc("POST /api/visits", func(w http.ResponseWriter, _ *http.Request) {
		v, err := visits.add(time.Now())
		if err != nil {
			fail(w, err)
			return
		}
		reply(w, v)
	})
	return mux
}

func health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "ok")
}

// fault is the body of a reply that is not a success.
type fault struct {
	Error string `json:"error"`
}

// fail tells the client and, since a failure of the server is the sandbox's affair, its log.
func fail(w http.ResponseWriter, err error) {
	fmt.Fprintln(os.Stderr, err)
	writeJSON(w, http.StatusInternalServerError, fault{Error: err.Error()})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// The only errors left are of a client that has gone.
	_ = json.NewEncoder(w).Encode(body)
}
