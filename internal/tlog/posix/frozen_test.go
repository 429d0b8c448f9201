package posix_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
)

// retired is a log that was closed with n entries, as its key leaves it.
func retired(t *testing.T, n int) (posix.Config, *signer, *tlog.Key) {
	t.Helper()
	s := newSigner(t)
	cfg := config(t, s)
	l := open(t, cfg)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			if _, err := l.Add(t.Context(), []byte(fmt.Sprint("entry ", i))); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	key := l.Key()
	closeLog(t, l)
	return cfg, s, key
}

func freeze(t *testing.T, dir string, key *tlog.Key) (*posix.Frozen, error) {
	t.Helper()
	return posix.OpenFrozen(t.Context(), dir, key, slog.New(slog.DiscardHandler))
}

func mustFreeze(t *testing.T, dir string, key *tlog.Key) *posix.Frozen {
	t.Helper()
	f, err := freeze(t, dir, key)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// unsettled copies a log while it is open: what a power loss leaves that comes before the
// last checkpoint was published. That is taken from the copy.
func unsettled(t *testing.T, from, checkpoint string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "log")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(to, "checkpoint")
	remove(t, name)
	if checkpoint != "" {
		write(t, name, []byte(checkpoint))
	}
	return to
}

func TestFrozen(t *testing.T) {
	t.Parallel()
	cfg, s, key := retired(t, 300) // more than a tile
	was := map[string][]byte{}
	for _, name := range []string{"checkpoint", ".state/treeState", "identity.json", "tile/0/000"} {
		was[name] = read(t, filepath.Join(cfg.Dir, name))
	}
	f := mustFreeze(t, cfg.Dir, key)
	if f.Size() != 300 || f.Published() != 300 || !bytes.Equal(f.Key().LogID, key.LogID) {
		t.Errorf("%d entries, %d published", f.Size(), f.Published())
	}
	fetcher, address := serve(t, f.Handler())
	text, err := fetcher.ReadCheckpoint(t.Context())
	if err != nil || !bytes.Equal(text, was["checkpoint"]) {
		t.Errorf("checkpoint %q: %v", text, err)
	}
	for path, want := range map[string]int{
		"/tile/0/000": 200, "/tile/0/001.p/44": 200, "/tile/1/000.p/1": 200, "/tile/entries/001.p/44": 200,
		"/tile/0/001.p/45": 404, "/tile/0/002": 404, "/identity.json": 404, "/.state/treeState": 404, "/lock": 404,
	} {
		if code, _ := get(t, address+path); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
	cp, err := tlog.ParseCheckpoint(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if root, err := f.RootAt(t.Context(), 300); err != nil || !bytes.Equal(root, cp.RootHash) {
		t.Errorf("root %x: %v", root, err)
	}
	if _, err := f.RootAt(t.Context(), 301); err == nil {
		t.Error("a root of more entries than there are")
	}
	for name, text := range was {
		if !bytes.Equal(read(t, filepath.Join(cfg.Dir, name)), text) {
			t.Errorf("%s has changed", name)
		}
	}
	checkDir(t, cfg.Dir, s)
}

func get(t *testing.T, address string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
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
	return resp.StatusCode, body
}

// TestFrozenDamaged: what somebody has done to a log that nobody signs for any more is
// noticed when it is opened.
func TestFrozenDamaged(t *testing.T) {
	t.Parallel()
	cfg, _, key := retired(t, 5)
	other, err := tlog.NewKey(testHost, newSigner(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	// A log of the same key with other entries.
	branch := cfg
	branch.Dir = filepath.Join(t.TempDir(), "branch")
	l := open(t, branch)
	add(t, l, "another")
	closeLog(t, l)
	for _, tt := range []struct {
		name, code string
		key        *tlog.Key
		damage     func(dir string)
	}{
		{"untouched", "", key, func(string) {}},
		{"another key", "LOG_IDENTITY_CHANGED", other, func(string) {}},
		{"checkpoint of another tree", "LOG_CORRUPT", key, func(dir string) {
			write(t, filepath.Join(dir, "checkpoint"), read(t, filepath.Join(branch.Dir, "checkpoint")))
		}},
		{"checkpoint of fewer", "LOG_IDENTITY_CHANGED", key, func(dir string) {
			name := filepath.Join(dir, "checkpoint")
			write(t, name, bytes.Replace(read(t, name), []byte("\n5\n"), []byte("\n4\n"), 1))
		}},
		{"tile flipped", "LOG_CORRUPT", key, func(dir string) { flip(t, filepath.Join(dir, "tile/0/000.p/5"), 70) }},
		{"tile cut", "LOG_CORRUPT", key, func(dir string) {
			name := filepath.Join(dir, "tile/0/000.p/5")
			write(t, name, read(t, name)[:64])
		}},
		{"tile gone", "LOG_CORRUPT", key, func(dir string) { remove(t, filepath.Join(dir, "tile")) }},
		{"tree gone", "LOG_ROLLED_BACK", key, func(dir string) { remove(t, filepath.Join(dir, ".state")) }},
		{"an older tree", "LOG_ROLLED_BACK", key, func(dir string) {
			write(t, filepath.Join(dir, ".state/treeState"), read(t, filepath.Join(branch.Dir, ".state/treeState")))
			remove(t, filepath.Join(dir, "tile"))
			if err := os.CopyFS(filepath.Join(dir, "tile"), os.DirFS(filepath.Join(branch.Dir, "tile"))); err != nil {
				t.Fatal(err)
			}
		}},
		{"no tree at all in words", "LOG_CORRUPT", key, func(dir string) { write(t, filepath.Join(dir, ".state/treeState"), []byte("{")) }},
		{"a tree of nothing", "LOG_CORRUPT", key, func(dir string) {
			write(t, filepath.Join(dir, ".state/treeState"), []byte(`{"size":0,"root":null}`))
		}},
		{"a tree of everything", "LOG_CORRUPT", key, func(dir string) {
			write(t, filepath.Join(dir, ".state/treeState"), []byte(`{"size":18446744073709551615,"root":null}`))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "log")
			if err := os.CopyFS(dir, os.DirFS(cfg.Dir)); err != nil {
				t.Fatal(err)
			}
			tt.damage(dir)
			f, err := freeze(t, dir, tt.key)
			wantCode(t, err, refusalCode(tt.code))
			if (f != nil) != (tt.code == "") {
				t.Errorf("opened: %t", f != nil)
			}
		})
	}
}

// TestFrozenEmpty: a log may be retired before it had an entry, or was begun.
func TestFrozenEmpty(t *testing.T) {
	t.Parallel()
	cfg, _, key := retired(t, 0)
	for name, dir := range map[string]string{"closed": cfg.Dir, "never begun": filepath.Join(t.TempDir(), "log")} {
		f := mustFreeze(t, dir, key)
		if f.Size() != 0 || f.Published() != 0 {
			t.Errorf("%s: %d entries, %d published", name, f.Size(), f.Published())
		}
		_, address := serve(t, f.Handler())
		if code, _ := get(t, address+"/tile/0/000.p/1"); code != http.StatusNotFound {
			t.Errorf("%s: %d", name, code)
		}
	}
}

// TestFrozenUnsettled: a log that was frozen with entries beyond its last checkpoint has
// them, and shows none of them. One that is settled first shows all.
func TestFrozenUnsettled(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	cfg := config(t, s)
	l := open(t, cfg)
	e := add(t, l, "one")
	if err := l.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	published := string(read(t, filepath.Join(cfg.Dir, "checkpoint")))
	for i := range 3 {
		e = add(t, l, fmt.Sprint("more ", i))
	}
	for name, checkpoint := range map[string]string{"one published": published, "none published": ""} {
		dir := unsettled(t, cfg.Dir, checkpoint)
		f := mustFreeze(t, dir, l.Key())
		want := uint64(0)
		if checkpoint != "" {
			want = 1
		}
		if f.Size() != 4 || f.Published() != want {
			t.Errorf("%s: %d entries, %d published", name, f.Size(), f.Published())
		}
		// A bundle's proof may lead to a tree that no published checkpoint covers.
		if root, err := f.RootAt(t.Context(), e.TreeSize); err != nil || !bytes.Equal(root, e.RootHash) {
			t.Errorf("%s: root %x: %v", name, root, err)
		}
		_, address := serve(t, f.Handler())
		if code, _ := get(t, address+"/tile/0/000.p/2"); code != http.StatusNotFound {
			t.Errorf("%s: an entry beyond the checkpoint: %d", name, code)
		}
		settled := cfg
		settled.Dir = dir
		again := open(t, settled)
		if err := again.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		closeLog(t, again)
		if f := mustFreeze(t, dir, l.Key()); f.Published() != 4 {
			t.Errorf("%s: settled, %d published", name, f.Published())
		}
		checkDir(t, dir, s)
	}
}

// TestSettleGivesUp: what cannot be signed is not said to be.
func TestSettleGivesUp(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	cfg := config(t, s)
	l := open(t, cfg)
	add(t, l, "one")
	dir := unsettled(t, cfg.Dir, "")
	closeLog(t, l)
	cfg.Dir = dir
	l = open(t, cfg)
	s.broken.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := l.Settle(ctx); err != nil { // else a checkpoint came before the key went
		wantCode(t, err, posix.CodeNotSettled)
	}
	s.broken.Store(false)
	if err := l.Settle(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestFrozenWhileOpen: a log may be read while it grows. What is seen is one moment of it.
func TestFrozenWhileOpen(t *testing.T) {
	t.Parallel()
	cfg := config(t, newSigner(t))
	l := open(t, cfg)
	add(t, l, "first")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 60 {
			if _, err := l.Add(context.Background(), []byte(fmt.Sprint("entry ", i))); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		f, err := freeze(t, cfg.Dir, l.Key())
		if err != nil {
			t.Fatal(err)
		}
		if f.Published() > f.Size() {
			t.Fatalf("%d entries, %d published", f.Size(), f.Published())
		}
	}
}
