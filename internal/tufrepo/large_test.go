package tufrepo

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

// nobody reads what it is sent and keeps nothing of it.
type nobody struct {
	header http.Header
	code   int
	n      int64
}

func (w *nobody) Header() http.Header { return w.header }
func (w *nobody) WriteHeader(code int) {
	w.code = code
}
func (w *nobody) Write(b []byte) (int, error) {
	w.n += int64(len(b))
	return len(b), nil
}

// allocated is how many bytes f takes from the heap, those it gives back included.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestLargeFile: a trusted root as large as verifiers read is published and served, from
// the disk: neither a look at it every minute nor somebody who asks for it costs memory.
// Not parallel: it measures the heap of the process.
func TestLargeFile(t *testing.T) {
	w := newWorld(t, t.TempDir())
	files := filesOf("large")
	files["trusted_root.json"] = bytes.Repeat([]byte("x"), maxFile)
	if changed, err := w.repo.Publish(t.Context(), files); err != nil || !changed {
		t.Fatalf("%t, %v", changed, err)
	}
	if !bytes.Equal(w.repo.File("trusted_root.json"), files["trusted_root.json"]) || w.repo.File("none") != nil {
		t.Error("File gives something else than what is published")
	}
	w.open(t) // reads it
	const little = 1 << 20
	if n := allocated(func() {
		if err := w.repo.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
	}); n > little {
		t.Errorf("a look at it took %d bytes", n)
	}
	path := "/tuf/" + targetPath("trusted_root.json", w.repo.served.Load().targets().Targets["trusted_root.json"])
	sink := &nobody{header: http.Header{}}
	if n := allocated(func() { w.repo.Handler().ServeHTTP(sink, httptest.NewRequest(http.MethodGet, path, nil)) }); n > little {
		t.Errorf("serving it took %d bytes", n)
	}
	if sink.code != http.StatusOK || sink.n != maxFile {
		t.Errorf("status %d, %d bytes", sink.code, sink.n)
	}

	files["trusted_root.json"] = append(files["trusted_root.json"], 'x')
	if _, err := w.repo.Publish(t.Context(), files); refusal.CodeOf(err) != CodeFilesInvalid {
		t.Errorf("one byte more: %v", err)
	}
	// Nor is it served or read from a directory into which somebody put it.
	if err := os.WriteFile(filepath.Join(w.dir, filepath.FromSlash(path[len("/tuf/"):])), files["trusted_root.json"], 0o600); err != nil {
		t.Fatal(err)
	}
	if got := get(t, w.repo.Handler(), http.MethodGet, path); got.Code != http.StatusNotFound {
		t.Errorf("served with status %d", got.Code)
	}
	if _, err := Open(w.config()); refusal.CodeOf(err) != CodeRepositoryInvalid {
		t.Errorf("opened: %v", err)
	}
}

// TestHeldFileChanges: what is in memory already is held against the disk all the same.
func TestHeldFileChanges(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(string, []byte) error{
		"other": func(path string, data []byte) error {
			data[0] ^= 1
			return os.WriteFile(path, data, 0o600)
		},
		"longer":  func(path string, data []byte) error { return os.WriteFile(path, append(data, 'x'), 0o600) },
		"shorter": func(path string, data []byte) error { return os.WriteFile(path, data[:len(data)-1], 0o600) },
		"gone":    func(path string, _ []byte) error { return os.Remove(path) },
	} {
		w := newWorld(t, t.TempDir())
		path := filepath.Join(w.dir, filepath.FromSlash(targetPath("keys.json", w.repo.served.Load().targets().Targets["keys.json"])))
		data := bytes.Clone(w.repo.File("keys.json"))
		if err := spoil(path, data); err != nil {
			t.Fatal(err)
		}
		if err := w.repo.Reload(t.Context()); refusal.CodeOf(err) != CodeRepositoryInvalid {
			t.Errorf("%s: %v", name, err)
		}
		if !w.repo.Same(filesOf("one")) {
			t.Errorf("%s: what was served is not any more", name)
		}
	}
}

// TestReload takes a change up and signs nothing, however urgent that would be.
func TestReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	other, err := Open(w.config())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Publish(t.Context(), filesOf("two")); err != nil {
		t.Fatal(err)
	}
	w.clock.advance(30 * 24 * time.Hour)
	if err := w.repo.Reload(t.Context()); err != nil || !w.repo.Same(filesOf("two")) {
		t.Errorf("not taken up: %v", err)
	}
	if v := w.repo.Status().Roles[3].Version; v != 2 {
		t.Errorf("timestamp %d, want that of the publication", v)
	}
}

// TestPublishFrom reads what it publishes when nobody can publish something newer.
func TestPublishFrom(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	other, err := Open(w.config())
	if err != nil {
		t.Fatal(err)
	}
	changed, err := w.repo.PublishFrom(t.Context(), func(context.Context) (map[string][]byte, error) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := other.Publish(ctx, filesOf("newer")); !errors.Is(err, context.Canceled) {
			t.Errorf("somebody else publishes meanwhile: %v", err)
		}
		return filesOf("two"), nil
	})
	if err != nil || !changed || !w.repo.Same(filesOf("two")) {
		t.Errorf("changed %t, %v", changed, err)
	}
	const unreadable refusal.Code = "KEYSET_INVALID"
	changed, err = w.repo.PublishFrom(t.Context(), func(context.Context) (map[string][]byte, error) {
		return nil, refusal.New(unreadable, "unreadable")
	})
	if refusal.CodeOf(err) != unreadable || changed || !w.repo.Same(filesOf("two")) {
		t.Errorf("changed %t, %v", changed, err)
	}
}
