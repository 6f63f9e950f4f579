package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"
)

// The hidden commands of whisk that are the two apps.
const (
	StageWeb   = "demo-web"
	StageStore = "demo-store"
)

// Run is the process of one app: stage is StageWeb or StageStore. It reads PORT (where to listen, default 8080) and,
// for the web app, STORE (the store's URL) through getenv, and returns when ctx is done or on SIGTERM or SIGINT.
func Run(ctx context.Context, stage string, getenv func(string) string) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	port := getenv("PORT")
	if port == "" {
		port = fmt.Sprint(appPort)
	}
	addr := net.JoinHostPort("", port)
	switch stage {
	case StageWeb:
		return Web(ctx, addr, getenv("STORE"))
	case StageStore:
		return Store(ctx, addr, dataDir)
	}
	return fmt.Errorf("running demo: no stage %q", stage)
}

// serve answers on addr until ctx is done, then lets requests that are under way finish.
func serve(ctx context.Context, addr string, h http.Handler) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler: h,
		// A client that sends its header slower than this holds a connection for nothing.
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	// Shorter than the 10 s after which a sandbox that does not stop is killed.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		return fmt.Errorf("finishing requests: %w", err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
