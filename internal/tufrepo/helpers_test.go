package tufrepo

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"
)

// memoryKey is a key of somebody who keeps it elsewhere.
type memoryKey struct{ private *ecdsa.PrivateKey }

func (k memoryKey) Public() crypto.PublicKey { return &k.private.PublicKey }

func (k memoryKey) Sign(_ context.Context, digest []byte) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, k.private, digest)
}

type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func newKey(t tester) memoryKey { return newCurveKey(t, elliptic.P256()) }

func newCurveKey(t tester, curve elliptic.Curve) memoryKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return memoryKey{private}
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 22, 12, 0, 0, 123, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is a repository and the owners of its keys.
type world struct {
	dir     string
	clock   *clock
	root    []Signer
	targets Signer
	repo    *Repository
	first   []byte // 1.root.json, as verifiers have it
}

func newWorld(t tester, dir string) *world {
	t.Helper()
	w := &world{dir: filepath.Join(dir, "tuf"), clock: newClock(), root: []Signer{newKey(t)}, targets: newKey(t)}
	err := Init(context.Background(), w.dir, InitOptions{RootSigners: w.root, Targets: w.targets, Files: filesOf("one"), Now: w.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	w.open(t)
	w.first = w.repo.Root()
	return w
}

func (w *world) config() Config {
	return Config{Dir: w.dir, Now: w.clock.Now, TargetsSigner: w.targets}
}

func (w *world) open(t tester) {
	t.Helper()
	repo, err := Open(w.config())
	if err != nil {
		t.Fatal(err)
	}
	w.repo = repo
}

func filesOf(content string) map[string][]byte {
	return map[string][]byte{
		"trusted_root.json":    []byte(`{"is":"` + content + `"}`),
		"keys.json":            []byte(`{"keys":"` + content + `"}`),
		"attestation_keys.pem": []byte("pem of " + content),
	}
}

// follow is a client of another make: go-tuf's own updater, with what it keeps in cache.
func follow(h http.Handler, root []byte, cache string, now time.Time) (map[string][]byte, error) {
	cfg, err := config.New("http://tuf.test/tuf", root)
	if err != nil {
		return nil, err
	}
	cfg.LocalMetadataDir, cfg.LocalTargetsDir = cache, filepath.Join(cache, "targets")
	cfg.Fetcher = handlerFetcher{h}
	if kept, err := os.ReadFile(filepath.Join(cache, "root.json")); err == nil {
		cfg.LocalTrustedRoot = kept
	}
	up, err := updater.New(cfg)
	if err != nil {
		return nil, err
	}
	up.UnsafeSetRefTime(now)
	if err := up.Refresh(); err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for name, info := range up.GetTopLevelTargets() {
		if info.Path == "" {
			info.Path = name
		}
		_, data, err := up.DownloadTarget(info, "", "")
		if err != nil {
			return nil, err
		}
		files[name] = data
	}
	return files, nil
}

type handlerFetcher struct{ h http.Handler }

func (f handlerFetcher) DownloadFile(url string, limit int64, _ time.Duration) ([]byte, error) {
	path, ok := strings.CutPrefix(url, "http://tuf.test")
	if !ok {
		return nil, errors.New("another host")
	}
	w := httptest.NewRecorder()
	f.h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	if w.Code != http.StatusOK {
		return nil, &metadata.ErrDownloadHTTP{StatusCode: w.Code, URL: url}
	}
	if int64(w.Body.Len()) > limit {
		return nil, fmt.Errorf("%s has %d bytes, limit %d", url, w.Body.Len(), limit)
	}
	return w.Body.Bytes(), nil
}

func get(t *testing.T, h http.Handler, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	req := httptest.NewRequest(method, "/", nil)
	req.URL.Path = path
	h.ServeHTTP(w, req)
	return w
}

func sameFiles(a, b map[string][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for name := range a {
		if !bytes.Equal(a[name], b[name]) {
			return false
		}
	}
	return true
}
