package tufrepo

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"pgregory.net/rapid"
)

func TestPublish(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	cache := t.TempDir()
	for _, step := range []struct {
		content string
		changed bool
		advance time.Duration
	}{{"one", false, 0}, {"two", true, 0}, {"two", false, time.Hour}, {"three", true, 0}, {"three", true, 46 * 24 * time.Hour}} {
		w.clock.advance(step.advance)
		changed, err := w.repo.Publish(t.Context(), filesOf(step.content))
		if err != nil || changed != step.changed {
			t.Fatalf("%s: changed %t, want %t: %v", step.content, changed, step.changed, err)
		}
		got, err := follow(w.repo.Handler(), w.first, cache, w.clock.Now())
		if err != nil || !sameFiles(got, filesOf(step.content)) {
			t.Fatalf("%s: a client sees %q, %v", step.content, got, err)
		}
	}
	st := w.repo.Status()
	if len(st.Warnings) != 0 || st.Roles[0].Version != 1 || st.Roles[1].Version != 4 || len(st.Files) != 3 {
		t.Errorf("%+v", st)
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	version := func(role int) int64 { return w.repo.Status().Roles[role].Version }
	for _, step := range []struct {
		advance             time.Duration
		snapshot, timestamp int64
	}{{11 * time.Hour, 1, 1}, {2 * time.Hour, 1, 2}, {4 * 24 * time.Hour, 2, 3}, {-10 * 24 * time.Hour, 2, 3}} {
		w.clock.advance(step.advance)
		if err := w.repo.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if version(2) != step.snapshot || version(3) != step.timestamp {
			t.Errorf("after %s: snapshot %d, timestamp %d; want %d, %d", step.advance, version(2), version(3), step.snapshot, step.timestamp)
		}
	}
}

func TestStatusWarns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	w.clock.advance(300 * 24 * time.Hour)
	warnings := strings.Join(w.repo.Status().Warnings, "\n")
	for _, want := range []string{"root 1 expires", "targets 1 expired", "snapshot 1 expired", "timestamp 1 expired"} {
		if !strings.Contains(warnings, want) {
			t.Errorf("no %q in %q", want, warnings)
		}
	}
}

func TestPublishOffline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	key := w.targets
	w.targets = nil
	w.open(t)
	w.clock.advance(80 * 24 * time.Hour)
	if changed, err := w.repo.Publish(t.Context(), filesOf("one")); changed || err != nil {
		t.Errorf("the same files: %t, %v", changed, err)
	}
	_, err := w.repo.Publish(t.Context(), filesOf("two"))
	if refusal.CodeOf(err) != CodeTargetsOffline {
		t.Errorf("other files: %v", err)
	}
	// Another process has the key; this one takes the change up.
	other, err := Open(Config{Dir: w.dir, Now: w.clock.Now, TargetsSigner: key})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Publish(t.Context(), filesOf("two")); err != nil {
		t.Fatal(err)
	}
	if w.repo.Same(filesOf("two")) {
		t.Error("seen before Refresh")
	}
	if err := w.repo.Refresh(t.Context()); err != nil || !w.repo.Same(filesOf("two")) {
		t.Errorf("not seen after Refresh: %v", err)
	}
}

type failingKey struct {
	memoryKey
	err error
}

func (k failingKey) Sign(context.Context, []byte) ([]byte, error) { return nil, k.err }

type forgedKey struct{ memoryKey }

func (k forgedKey) Sign(context.Context, []byte) ([]byte, error) { return []byte("no signature"), nil }

func TestPublishRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	mine := w.targets.(memoryKey)
	many := map[string][]byte{}
	for i := range maxFiles + 1 {
		many[fmt.Sprint(i)] = []byte("x")
	}
	const away refusal.Code = "KMS_AWAY"
	for name, c := range map[string]struct {
		signer Signer
		files  map[string][]byte
		code   refusal.Code
	}{
		"no files":    {mine, nil, CodeFilesInvalid},
		"many files":  {mine, many, CodeFilesInvalid},
		"empty file":  {mine, map[string][]byte{"a": nil}, CodeFilesInvalid},
		"large file":  {mine, map[string][]byte{"a": make([]byte, maxFile+1)}, CodeFilesInvalid},
		"a path":      {mine, map[string][]byte{"../a": []byte("x")}, CodeFilesInvalid},
		"a dot":       {mine, map[string][]byte{".a": []byte("x")}, CodeFilesInvalid},
		"upper case":  {mine, map[string][]byte{"A": []byte("x")}, CodeFilesInvalid},
		"another key": {newKey(t), filesOf("two"), CodeKeyMismatch},
		"P-384":       {newCurveKey(t, elliptic.P384()), filesOf("two"), CodeKeyUnsupported},
		"no answer":   {failingKey{mine, refusal.New(away, "away")}, filesOf("two"), away},
		"wrong":       {forgedKey{mine}, filesOf("two"), CodeThreshold},
	} {
		w.targets = c.signer
		w.open(t)
		if changed, err := w.repo.Publish(t.Context(), c.files); refusal.CodeOf(err) != c.code || changed {
			t.Errorf("%s: %t, %v; want %s", name, changed, err, c.code)
		}
		if !w.repo.Same(filesOf("one")) {
			t.Errorf("%s: published", name)
		}
	}
	// What was refused left nothing that is in the way.
	w.targets = mine
	w.open(t)
	if changed, err := w.repo.Publish(t.Context(), filesOf("two")); err != nil || !changed {
		t.Error(err)
	}
}

func TestInitRefused(t *testing.T) {
	t.Parallel()
	alice, bob := newKey(t), newKey(t)
	good := func() InitOptions {
		return InitOptions{RootSigners: []Signer{alice, bob}, RootThreshold: 2, Targets: newKey(t), Files: filesOf("one")}
	}
	for name, c := range map[string]struct {
		edit func(*InitOptions)
		code refusal.Code
	}{
		"no targets key":    {func(o *InitOptions) { o.Targets = nil }, CodeTargetsOffline},
		"no root":           {func(o *InitOptions) { o.RootSigners = nil }, CodeThreshold},
		"one key twice":     {func(o *InitOptions) { o.RootSigners = []Signer{alice, alice} }, CodeThreshold},
		"threshold 3 of 2":  {func(o *InitOptions) { o.RootThreshold = 3 }, CodeThreshold},
		"one of two absent": {func(o *InitOptions) { o.RootSigners, o.RootKeys = []Signer{alice}, []crypto.PublicKey{bob.Public()} }, CodeThreshold},
		"P-384":             {func(o *InitOptions) { o.RootSigners[0] = newCurveKey(t, elliptic.P384()) }, CodeKeyUnsupported},
		"no files":          {func(o *InitOptions) { o.Files = nil }, CodeFilesInvalid},
	} {
		dir := filepath.Join(t.TempDir(), "tuf")
		o := good()
		c.edit(&o)
		if err := Init(t.Context(), dir, o); refusal.CodeOf(err) != c.code {
			t.Errorf("%s: %v; want %s", name, err, c.code)
		}
		if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) != 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
	dir := filepath.Join(t.TempDir(), "tuf")
	if err := Init(t.Context(), dir, good()); err != nil {
		t.Fatal(err)
	}
	if err := Init(t.Context(), dir, good()); refusal.CodeOf(err) != CodeExists {
		t.Errorf("twice: %v", err)
	}
	if _, err := Open(Config{Dir: filepath.Join(t.TempDir(), "none")}); refusal.CodeOf(err) != CodeNotInitialized {
		t.Errorf("open nothing: %v", err)
	}
	full := filepath.Join(t.TempDir(), "tuf")
	if err := os.MkdirAll(filepath.Join(full, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Init(t.Context(), full, good()); refusal.CodeOf(err) != CodeExists {
		t.Errorf("into what is not empty: %v", err)
	}
}

func TestOpenRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit func(t *testing.T, w *world)
		code refusal.Code
	}{
		"timestamp gone":    {gone("timestamp.json"), CodeRepositoryInvalid},
		"snapshot gone":     {gone("4.snapshot.json"), CodeRepositoryInvalid},
		"targets gone":      {gone("2.targets.json"), CodeRepositoryInvalid},
		"first root gone":   {gone("1.root.json"), CodeRepositoryInvalid},
		"last root gone":    {gone("3.root.json"), CodeRepositoryInvalid},
		"a gap":             {gone("2.root.json"), CodeRepositoryInvalid},
		"all roots gone":    {gone("1.root.json", "2.root.json", "3.root.json"), CodeNotInitialized},
		"root is another's": {func(t *testing.T, w *world) { copyFrom(t, w, "1.root.json") }, CodeRepositoryInvalid},
		"target changed": {func(t *testing.T, w *world) {
			names, err := filepath.Glob(filepath.Join(w.dir, "targets", "*.keys.json"))
			if err != nil || len(names) == 0 {
				t.Fatal(names, err)
			}
			for _, name := range names {
				write(t, name, []byte("changed"))
			}
		}, CodeRepositoryInvalid},
		"timestamp is junk": {func(t *testing.T, w *world) { write(t, filepath.Join(w.dir, "timestamp.json"), []byte("{}")) }, CodeRepositoryInvalid},
		"timestamp is endless": {func(t *testing.T, w *world) {
			write(t, filepath.Join(w.dir, "timestamp.json"), make([]byte, maxMetadata+1))
		}, CodeRepositoryInvalid},
		"timestamp is another's": {func(t *testing.T, w *world) { copyFrom(t, w, "timestamp.json") }, CodeRepositoryInvalid},
		"a key gone":             {gone("keys/timestamp-3.pem"), CodeOnlineKeyMissing},
		"a key others may read": {func(t *testing.T, w *world) {
			if err := os.Chmod(filepath.Join(w.dir, "keys", "snapshot-3.pem"), 0o640); err != nil {
				t.Fatal(err)
			}
		}, "KEY_FILE_MODE"},
	} {
		w := newWorld(t, t.TempDir())
		for range 2 {
			if err := RotateRoot(t.Context(), w.config(), RootChange{Now: w.clock.Now}, w.root...); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.repo.Publish(t.Context(), filesOf("two")); err != nil {
			t.Fatal(err)
		}
		c.edit(t, w)
		if _, err := Open(w.config()); refusal.CodeOf(err) != c.code {
			t.Errorf("%s: %v; want %s", name, err, c.code)
		}
		// A service that runs goes on with what it has.
		if err := w.repo.Refresh(t.Context()); name != "a key gone" && name != "a key others may read" && err == nil {
			t.Errorf("%s: Refresh says nothing", name)
		}
		if got := get(t, w.repo.Handler(), http.MethodGet, "/tuf/timestamp.json"); got.Code != http.StatusOK {
			t.Errorf("%s: the service stopped serving: %d", name, got.Code)
		}
	}
}

func gone(names ...string) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		for _, name := range names {
			if err := os.Remove(filepath.Join(w.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func copyFrom(t *testing.T, w *world, name string) {
	t.Helper()
	other := newWorld(t, t.TempDir())
	data, err := os.ReadFile(filepath.Join(other.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(w.dir, name), data)
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestBackup restores an older state below a running service.
func TestBackup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	old, err := os.ReadFile(filepath.Join(w.dir, "timestamp.json"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.repo.Publish(t.Context(), filesOf("two")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(w.dir, "timestamp.json"), old)
	if err := w.repo.Refresh(t.Context()); refusal.CodeOf(err) != CodeRepositoryInvalid {
		t.Errorf("%v", err)
	}
}

func TestPrune(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	for i := range 3 * keptVersions {
		if _, err := w.repo.Publish(t.Context(), filesOf(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	for pattern, most := range map[string]int{"*.snapshot.json": keptVersions + 1, "*.targets.json": keptVersions + 1, "targets/*": 3 * (keptVersions + 1), "keys/*": 2, ".tmp*": 0} {
		names, err := filepath.Glob(filepath.Join(w.dir, pattern))
		if err != nil || len(names) > most {
			t.Errorf("%s: %d files, at most %d; %v", pattern, len(names), most, err)
		}
	}
	if _, err := follow(w.repo.Handler(), w.first, t.TempDir(), w.clock.Now()); err != nil {
		t.Error(err)
	}
}

var errCrash = errors.New("crash")

// TestCrash stops each operation before each of its writes, and demands that what is
// there then is the old state or the new one, to a fresh client and to one that has
// followed; that the next process goes on; and that the operation then works.
func TestCrash(t *testing.T) {
	t.Parallel()
	for name, operation := range map[string]func(w *world, d *disk) error{
		"publish": func(w *world, d *disk) error {
			w.repo.disk = d
			_, err := w.repo.Publish(context.Background(), filesOf("two"))
			return err
		},
		"snapshot": func(w *world, d *disk) error {
			w.clock.advance(5 * 24 * time.Hour)
			w.repo.disk = d
			return w.repo.Refresh(context.Background())
		},
		"new targets key": func(w *world, d *disk) error {
			key := newKey(panicker{})
			w.targets = key
			return rotate(w, d, RootChange{Now: w.clock.Now, Targets: key.Public()})
		},
		"new targets key only": func(w *world, d *disk) error {
			key := newKey(panicker{})
			w.targets = key
			return rotate(w, d, RootChange{Now: w.clock.Now, Targets: key.Public(), KeepOnline: true})
		},
		"new online keys": func(w *world, d *disk) error { return rotate(w, d, RootChange{Now: w.clock.Now}) },
		"same keys":       func(w *world, d *disk) error { return rotate(w, d, RootChange{Now: w.clock.Now, KeepOnline: true}) },
	} {
		points := 0
		for ; ; points++ {
			w := newWorld(t, t.TempDir())
			targetsBefore := w.targets
			cache := t.TempDir()
			if _, err := follow(w.repo.Handler(), w.first, cache, w.clock.Now()); err != nil {
				t.Fatal(err)
			}
			left := points
			err := operation(w, &disk{dir: w.dir, before: func(string) error {
				if left--; left < 0 {
					return errCrash
				}
				return nil
			}})
			done := err == nil
			if !done && !errors.Is(err, errCrash) {
				t.Fatalf("%s, crash %d: %v", name, points, err)
			}
			w.open(t)
			for _, dir := range []string{t.TempDir(), cache} {
				got, err := follow(w.repo.Handler(), w.first, dir, w.clock.Now())
				expired := &metadata.ErrExpiredMetadata{}
				if errors.As(err, &expired) && name == "snapshot" {
					continue // Nobody has refreshed for five days.
				}
				if err != nil || !sameFiles(got, filesOf("one")) && !sameFiles(got, filesOf("two")) {
					t.Fatalf("%s, crash %d: a client sees %q, %v", name, points, got, err)
				}
			}
			if w.repo.Status().Roles[0].Version == 1 {
				w.targets = targetsBefore
			}
			w.open(t)
			if _, err := w.repo.Publish(t.Context(), filesOf("three")); err != nil {
				t.Fatalf("%s, crash %d, afterwards: %v", name, points, err)
			}
			if err := RotateRoot(t.Context(), w.config(), RootChange{Now: w.clock.Now}, w.root...); err != nil {
				t.Fatalf("%s, crash %d, afterwards: %v", name, points, err)
			}
			w.open(t)
			if got, err := follow(w.repo.Handler(), w.first, cache, w.clock.Now()); err != nil || !sameFiles(got, filesOf("three")) {
				t.Fatalf("%s, crash %d, afterwards: %q, %v", name, points, got, err)
			}
			if done {
				break
			}
		}
		if points < 2 {
			t.Errorf("%s: only %d points", name, points)
		}
		t.Logf("%s: %d points", name, points)
	}
}

type panicker struct{ tester }

func (panicker) Helper() {}

func rotate(w *world, d *disk, c RootChange) error {
	draft, err := DraftRoot(context.Background(), d.dir, c)
	if err == nil {
		draft, err = AddRootSignature(context.Background(), draft, w.root[0])
	}
	if err != nil {
		return err
	}
	return d.installRoot(context.Background(), w.config(), draft)
}

// TestInitCrash demands that a beginning is whole or not there.
func TestInitCrash(t *testing.T) {
	t.Parallel()
	for point := 0; ; point++ {
		dir := filepath.Join(t.TempDir(), "tuf")
		left := point
		o := InitOptions{RootSigners: []Signer{newKey(t)}, Targets: newKey(t), Files: filesOf("one")}
		err := (&disk{before: func(string) error {
			if left--; left < 0 {
				return errCrash
			}
			return nil
		}}).init(t.Context(), dir, o)
		if err == nil {
			break
		}
		if _, err := Open(Config{Dir: dir}); refusal.CodeOf(err) != CodeNotInitialized {
			t.Fatalf("crash %d: %v", point, err)
		}
		if err := Init(t.Context(), dir, o); err != nil {
			t.Fatalf("crash %d, again: %v", point, err)
		}
	}
}

// TestAnySequence: whatever is done in whatever order, with processes that come and go
// and clocks that run, a client that begins with 1.root.json and a client from any
// earlier day get the files that were published last.
func TestAnySequence(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("", "tufrepo")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		w := newWorld(rt, dir)
		published := "one"
		olds := []string{}
		steps := rapid.IntRange(1, 12).Draw(rt, "steps")
		for step := range steps {
			w.clock.advance(time.Duration(rapid.IntRange(0, 100).Draw(rt, "hours")) * time.Hour)
			switch rapid.SampledFrom([]string{"publish", "refresh", "rotate", "rotate all", "reopen", "crash"}).Draw(rt, "do") {
			case "publish":
				published = rapid.SampledFrom([]string{"one", "two", "three"}).Draw(rt, "files")
				if _, err := w.repo.Publish(context.Background(), filesOf(published)); err != nil {
					rt.Fatal(err)
				}
			case "rotate":
				c := RootChange{Now: w.clock.Now, KeepOnline: rapid.Bool().Draw(rt, "keep")}
				if err := RotateRoot(context.Background(), w.config(), c, w.root...); err != nil {
					rt.Fatal(err)
				}
			case "rotate all":
				old := w.root
				w.root, w.targets = []Signer{newKey(rt), newKey(rt)}, newKey(rt)
				c := RootChange{Now: w.clock.Now, Threshold: 2, Targets: w.targets.Public()}
				for _, s := range w.root {
					c.Keys = append(c.Keys, s.Public())
				}
				if err := RotateRoot(context.Background(), w.config(), c, append(old, w.root...)...); err != nil {
					rt.Fatal(err)
				}
				w.open(rt)
			case "reopen":
				w.open(rt)
			case "crash":
				left := rapid.IntRange(0, 6).Draw(rt, "writes")
				w.repo.disk = &disk{dir: w.dir, before: func(string) error {
					if left--; left < 0 {
						return errCrash
					}
					return nil
				}}
				_, err := w.repo.Publish(context.Background(), filesOf("crash"))
				w.open(rt)
				if err == nil || w.repo.Same(filesOf("crash")) {
					published = "crash"
				}
			}
			if err := w.repo.Refresh(context.Background()); err != nil {
				rt.Fatal(err)
			}
			if w.clock.Now().After(w.repo.Status().Roles[1].Expires) {
				if _, err := w.repo.Publish(context.Background(), filesOf(published)); err != nil {
					rt.Fatal(err)
				}
			}
			check := func(cache string) {
				got, err := follow(w.repo.Handler(), w.first, cache, w.clock.Now())
				if err != nil || !sameFiles(got, filesOf(published)) {
					rt.Fatalf("step %d: client %s sees %q, %v; want %s", step, filepath.Base(cache), got, err, published)
				}
			}
			fresh := filepath.Join(dir, fmt.Sprint("client-", step))
			check(fresh)
			check(filepath.Join(dir, "faithful"))
			for _, old := range olds {
				again := filepath.Join(dir, fmt.Sprint("again-", step, filepath.Base(old)))
				if err := os.CopyFS(again, os.DirFS(old)); err != nil {
					rt.Fatal(err)
				}
				check(again)
			}
			if olds = append(olds, fresh); len(olds) > 3 { // as of its day, and it stays there
				olds = slices.Delete(olds, 1, 2) // the very first always stays
			}
		}
	})
}
