package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/assay-build/assay/internal/durable"
)

// holds demands that dir has the file f with the given content and mode, and no other.
func holds(t *testing.T, dir, content string, mode fs.FileMode) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "f"))
	if err != nil || string(got) != content {
		t.Fatalf("%q, %v; want %q", got, err, content)
	}
	if info, err := entries[0].Info(); err != nil || info.Mode() != mode {
		t.Errorf("mode %s, %v; want %s", info.Mode(), err, mode)
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := durable.Create(path, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := durable.Create(path, []byte("second"), 0o644); !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v", err)
	}
	holds(t, dir, "first", 0o600)
	if err := durable.Create(filepath.Join(dir, "away", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, content := range []string{"first", "second", ""} {
		if err := durable.Replace(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		holds(t, dir, content, 0o644) // whatever the umask
	}
}

// What cannot be given its name leaves what was there, and nothing beside it.
func TestReplaceFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "f", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(filepath.Join(dir, "f"), []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if strays, err := durable.Strays(dir); err != nil || len(strays) != 0 {
		t.Errorf("%v, %v", strays, err)
	}
}

// TestCreateAtOnce has many creators of one name: one makes it, and all others know.
func TestCreateAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var made atomic.Pointer[string]
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			content := fmt.Sprint("by ", i)
			switch err := durable.Create(filepath.Join(dir, "f"), []byte(content), 0o600); {
			case err == nil:
				if made.Swap(&content) != nil {
					t.Error("two made it")
				}
			case !errors.Is(err, fs.ErrExist):
				t.Error(err)
			}
		})
	}
	all.Wait()
	holds(t, dir, *made.Load(), 0o600)
}

// TestReplaceIsWhole reads a file while it is replaced.
func TestReplaceIsWhole(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	old, fresh := bytes.Repeat([]byte("a"), 1<<20), bytes.Repeat([]byte("b"), 1<<19)
	if err := durable.Replace(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for i := range 20 {
			if err := durable.Replace(path, [][]byte{fresh, old}[i%2], 0o600); err != nil {
				t.Error(err)
			}
		}
	})
	for range 100 {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, old) && !bytes.Equal(got, fresh) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	all.Wait()
}

// A writer who stops after any step leaves the old content or the new, and at most a
// file that Strays names.
func TestCrash(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := durable.Create(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	tmp, err := durable.Stage(path, []byte("new"), 0o640)
	if err != nil {
		t.Fatal(err)
	}
	strays, err := durable.Strays(dir)
	if err != nil || len(strays) != 1 || strays[0] != tmp {
		t.Fatalf("%v, %v; want %s", strays, err, tmp)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
		t.Errorf("%q, %v", got, err)
	}
	if err := errors.Join(os.Rename(tmp, path), durable.SyncDir(dir)); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, "new", 0o640)
}
