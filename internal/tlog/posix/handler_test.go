package posix

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/tessera/api/layout"
)

type plainSigner struct{ *ecdsa.PrivateKey }

func (s plainSigner) Sign(_ context.Context, digest []byte) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, s.PrivateKey, digest)
}
func (s plainSigner) Public() crypto.PublicKey { return s.PrivateKey.Public() }

// handlerLog is a log of 300 entries, the first tile full.
func handlerLog(t *testing.T) *Log {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), Config{Dir: t.TempDir(), Host: "log.example.com", Signer: plainSigner{key}, CheckpointInterval: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	done := make(chan error)
	for i := range 300 {
		go func() {
			_, err := l.Add(t.Context(), []byte{byte(i), byte(i >> 8), 0})
			done <- err
		}()
	}
	for range 300 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func TestHandler(t *testing.T) {
	t.Parallel()
	l := handlerLog(t)
	// What a batch killed before its commit point leaves: it must not be seen.
	for _, name := range []string{"tile/0/000.p/200", "tile/0/001.p/7", "tile/0/001.p/60", "tile/entries/001.p/7", "tile/entries/002"} {
		path := filepath.Join(l.cfg.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Repeat("stale", 2000)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		method, path string
		status, size int
	}{
		{"GET", "/checkpoint", 200, -1},
		{"HEAD", "/checkpoint", 200, 0},
		{"GET", "/tile/0/000", 200, 32 * 256},
		{"GET", "/tile/0/000.p/1", 200, 32},
		{"GET", "/tile/0/000.p/200", 200, 32 * 200},
		{"GET", "/tile/0/001.p/44", 200, 32 * 44},
		{"GET", "/tile/0/001.p/7", 200, 32 * 7},
		{"GET", "/tile/1/000.p/1", 200, 32},
		{"GET", "/tile/entries/000", 200, 5 * 256},
		{"GET", "/tile/entries/000.p/3", 200, 5 * 3},
		{"GET", "/tile/entries/001.p/44", 200, 5 * 44},
		{"GET", "/tile/entries/001.p/7", 200, 5 * 7},
		{"HEAD", "/tile/0/000", 200, 0},
		{"GET", "/tile/0/001.p/45", 404, -1}, // beyond the tree
		{"GET", "/tile/0/001.p/60", 404, -1},
		{"GET", "/tile/0/001", 404, -1},
		{"GET", "/tile/entries/002", 404, -1},
		{"GET", "/tile/1/000", 404, -1},
		{"GET", "/tile/1/000.p/2", 404, -1},
		{"GET", "/tile/2/000.p/1", 404, -1},
		{"GET", "/tile/8/000", 404, -1},
		{"GET", "/tile/0/000.p/0", 404, -1}, // not the one spelling
		{"GET", "/tile/0/000.p/256", 404, -1},
		{"GET", "/tile/0/000.p/01", 404, -1},
		{"GET", "/tile/0/x000/000", 404, -1},
		{"GET", "/tile/0/00", 404, -1},
		{"GET", "/tile/00/000", 404, -1},
		{"GET", "/tile/0/000/", 404, -1},
		{"GET", "/tile/0/000.p/1/", 404, -1},
		{"GET", "/tile/0/", 404, -1},
		{"GET", "/tile/0/x999/x999/x999/x999/x999/x999/999", 404, -1},
		{"GET", "/tile/0/000%2e%2e", 404, -1},
		{"GET", "/", 404, -1},
		{"GET", "/lock", 404, -1}, // private
		{"GET", "/identity.json", 404, -1},
		{"GET", "/.state/treeState", 404, -1},
		{"GET", "/tile/../.state/treeState", 404, -1},
		{"GET", "/tile/entries/..%2f..%2fidentity.json", 404, -1},
		{"GET", "//checkpoint", 404, -1},
		{"GET", "/checkpoint/", 404, -1},
		{"POST", "/checkpoint", 405, -1},
		{"DELETE", "/tile/0/000", 405, -1},
	}
	for _, tt := range tests {
		req := httptest.NewRequest(tt.method, tt.path, nil)
		rec := httptest.NewRecorder()
		l.Handler().ServeHTTP(rec, req)
		body, err := io.ReadAll(rec.Body)
		if err != nil {
			t.Fatal(err)
		}
		if rec.Code != tt.status || tt.size >= 0 && len(body) != tt.size {
			t.Errorf("%s %s: %d with %d bytes, want %d with %d", tt.method, tt.path, rec.Code, len(body), tt.status, tt.size)
		}
		if strings.Contains(string(body), "stale") {
			t.Errorf("%s %s serves an uncommitted file", tt.method, tt.path)
		}
		cache := rec.Header().Get("Cache-Control")
		switch {
		case tt.status == 200 && strings.HasPrefix(tt.path, "/tile/"):
			if !strings.Contains(cache, "immutable") || rec.Header().Get("Content-Type") != "application/octet-stream" {
				t.Errorf("%s: headers %v", tt.path, rec.Header())
			}
		case tt.status == 200:
			if cache != "no-cache" || rec.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("%s: headers %v", tt.path, rec.Header())
			}
		case cache != "":
			t.Errorf("%s %s: a refusal may be cached (%s)", tt.method, tt.path, cache)
		}
	}
}

// A damaged file is an error of ours and not a short answer.
func TestHandlerShortFiles(t *testing.T) {
	t.Parallel()
	l := handlerLog(t)
	for _, path := range []string{"tile/0/001.p/44", "tile/entries/001.p/44"} {
		name := filepath.Join(l.cfg.Dir, path)
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, raw[:len(raw)-1], 0o644); err != nil {
			t.Fatal(err)
		}
		rec := httptest.NewRecorder()
		l.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/"+path, nil))
		if rec.Code != http.StatusInternalServerError || rec.Header().Get("Cache-Control") != "" {
			t.Errorf("%s: %d %v", path, rec.Code, rec.Header())
		}
	}
}

func FuzzParseResource(f *testing.F) {
	seeds := []string{"/tile/0/000", "/tile/entries/x001/x234/067", "/tile/7/x001/000.p/255", "/tile/0/000.p/0",
		"/tile/entries/x999/x999/x999/x999/x999/x999/999", "/tile/../x", "/tile/0/x001/x234/067.p/8", "/checkpoint"}
	accepted := 0
	for _, s := range seeds {
		if _, ok := parseResource(s); ok {
			accepted++
		}
		f.Add(s)
	}
	if accepted < 4 {
		f.Fatalf("only %d seeds are accepted", accepted)
	}
	f.Fuzz(func(t *testing.T, p string) {
		r, ok := parseResource(p)
		if !ok {
			return
		}
		if "/"+r.path() != p || !filepath.IsLocal(r.path()) || !strings.HasPrefix(r.path(), "tile/") {
			t.Fatalf("%q became %q", p, r.path())
		}
		if strings.Contains(p, "..") || r.level > 7 || r.width() < 1 || r.width() > layout.TileWidth {
			t.Fatalf("%q became %+v", p, r)
		}
		if r.within(0) {
			t.Fatalf("%q is within an empty tree", p)
		}
	})
}
