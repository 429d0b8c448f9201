package testenv

import (
	"context"
	"log/slog"
	"testing"

	"github.com/assay-build/assay/server"
)

// Env is a running sandbox inside a test.
type Env struct {
	*Sandbox
	// Server is the URL to dial.
	Server string
	// Data is the server's directory.
	Data string
}

// New starts a sandbox on a free port and stops it when the test ends. Each
// edit may change the configuration first.
func New(tb testing.TB, edit ...func(*server.Config)) *Env {
	tb.Helper()
	cfg := server.Config{Data: tb.TempDir(), Logger: slog.New(slog.DiscardHandler)}
	s, err := NewSandbox(tb.Context(), "127.0.0.1:0", cfg, func(c *server.Config) {
		for _, e := range edit {
			e(c)
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("testenv: server stopped with: %v", err)
		}
	})
	return &Env{Sandbox: s, Server: s.URL(), Data: cfg.Data}
}
