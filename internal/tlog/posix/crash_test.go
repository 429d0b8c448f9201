package posix_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
)

// appendUntilKilled is the child of TestKill: it appends from 16 goroutines and
// prints each acknowledged entry.
func appendUntilKilled(dir string) {
	der, err := base64.StdEncoding.DecodeString(os.Getenv("ASSAY_TEST_LOG_KEY"))
	if err != nil {
		panic(err)
	}
	key, err := x509.ParseECPrivateKey(der)
	if err != nil {
		panic(err)
	}
	l, err := posix.Open(context.Background(), posix.Config{Dir: dir, Host: testHost, Signer: &signer{key: key}, BatchMaxSize: 64, CheckpointInterval: 100 * time.Millisecond})
	if err != nil {
		panic(err)
	}
	var mu sync.Mutex
	for w := range 16 {
		go func() {
			for i := 0; ; i++ {
				body := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				e, err := l.Add(context.Background(), []byte(body))
				if err != nil {
					panic(err)
				}
				mu.Lock()
				fmt.Printf("%d %s\n", e.Index, body)
				mu.Unlock()
			}
		}()
	}
	select {}
}

// A log killed at any point opens again, in the same tree, with every
// acknowledged entry where it was said to be.
func TestKill(t *testing.T) {
	s := newSigner(t)
	cfg := config(t, s)
	der, err := x509.MarshalECPrivateKey(s.key)
	if err != nil {
		t.Fatal(err)
	}
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	acked := map[uint64]string{}
	for range rounds {
		killAfter(t, cfg.Dir, base64.StdEncoding.EncodeToString(der), 50+rand.IntN(400), acked)
		l := open(t, cfg)
		for index, body := range acked {
			e, err := l.Entry(t.Context(), index)
			if err != nil {
				t.Fatal(err)
			}
			if string(e.Body) != body {
				t.Fatalf("entry %d is %q, acknowledged was %q", index, e.Body, body)
			}
			mustVerify(t, l, e)
		}
		mustVerify(t, l, add(t, l, "life goes on"))
		closeLog(t, l)
		checkDir(t, cfg.Dir, s)
		checkNoStrayFiles(t, cfg.Dir)
	}
	t.Logf("%d kills, %d acknowledged entries", rounds, len(acked))
}

func killAfter(t *testing.T, dir, key string, n int, acked map[uint64]string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "ASSAY_TEST_LOG_DIR="+dir, "ASSAY_TEST_LOG_KEY="+key)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for i := 0; lines.Scan(); i++ {
		var index uint64
		var body string
		if _, err := fmt.Sscanf(lines.Text(), "%d %s", &index, &body); err != nil {
			continue // the line that the kill cut
		}
		if old, ok := acked[index]; ok {
			t.Fatalf("index %d was given to %s and %s", index, old, body)
		}
		acked[index] = body
		if i == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child ended by itself: %v\n%s", err, stderr.String())
	}
}

// Every file of a log that is not one of the known names is a stray.
func checkNoStrayFiles(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		base := filepath.Base(path)
		known := rel == "checkpoint" || rel == "lock" || rel == "identity.json" ||
			strings.HasPrefix(rel, ".state/") && !strings.ContainsAny(rel, "0123456789") ||
			strings.HasPrefix(rel, "tile/") && len(base) <= 3
		if !known {
			t.Errorf("stray file %s", rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestStrayFilesAreSwept(t *testing.T) {
	t.Parallel()
	cfg := config(t, newSigner(t))
	l := open(t, cfg)
	for range 3 {
		add(t, l, "entry")
	}
	closeLog(t, l)
	stray := []string{"checkpoint123456", ".state/treeState99", ".state/gcState1", ".state/version2147483647",
		"tile/0/0001234", "tile/entries/000555", "tile/entries/0019", "tile/0/000.p/31234567", "tile/entries/000.p/2551"}
	keep := []string{"tile/0/000.p/1", "tile/0/000.p/3", "tile/entries/000.p/2", "tile/0/000.p/255", "tile/0/notes.txt", "tile/0/000x12",
		"checkpoint.old", "checkpoint12345678901", ".state/treeStateX", "tile/entries/999", "tile/0/000.p/0300"}
	for _, name := range append(stray, keep...) {
		path := filepath.Join(cfg.Dir, name)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := os.WriteFile(path, []byte("left behind"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l = open(t, cfg)
	for _, name := range stray {
		if _, err := os.Stat(filepath.Join(cfg.Dir, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	for _, name := range keep {
		if _, err := os.Stat(filepath.Join(cfg.Dir, name)); err != nil {
			t.Errorf("%s was removed: %v", name, err)
		}
	}
	mustVerify(t, l, add(t, l, "entry"))
}

// An old backup, or half of one, must not become a second history.
func TestRollbackIsRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		damage func(t *testing.T, dir string, before map[string][]byte)
		code   string
	}{
		{"older tree", func(t *testing.T, dir string, before map[string][]byte) {
			write(t, filepath.Join(dir, ".state/treeState"), before[".state/treeState"])
		}, "LOG_ROLLED_BACK"},
		{"no tree", func(t *testing.T, dir string, _ map[string][]byte) {
			remove(t, filepath.Join(dir, ".state/treeState"))
		}, "LOG_ROLLED_BACK"},
		{"no state at all", func(t *testing.T, dir string, _ map[string][]byte) {
			remove(t, filepath.Join(dir, ".state"))
		}, "LOG_ROLLED_BACK"},
		{"other tile", func(t *testing.T, dir string, _ map[string][]byte) {
			flip(t, filepath.Join(dir, "tile/0/000.p/6"), 100)
		}, "LOG_CORRUPT"},
		{"missing tile", func(t *testing.T, dir string, _ map[string][]byte) {
			remove(t, filepath.Join(dir, "tile/0/000.p/6"))
		}, "LOG_CORRUPT"},
		{"short tile", func(t *testing.T, dir string, _ map[string][]byte) {
			write(t, filepath.Join(dir, "tile/0/000.p/6"), make([]byte, 32*5))
		}, "LOG_CORRUPT"},
		{"garbled checkpoint", func(t *testing.T, dir string, _ map[string][]byte) {
			write(t, filepath.Join(dir, "checkpoint"), []byte("hello\n"))
		}, "LOG_CORRUPT"},
		{"checkpoint with another signature", func(t *testing.T, dir string, _ map[string][]byte) {
			raw := read(t, filepath.Join(dir, "checkpoint"))
			write(t, filepath.Join(dir, "checkpoint"), []byte(strings.Replace(string(raw), "\n6\n", "\n5\n", 1)))
		}, "LOG_IDENTITY_CHANGED"},
		{"no identity", func(t *testing.T, dir string, _ map[string][]byte) {
			remove(t, filepath.Join(dir, "identity.json"))
		}, "LOG_IDENTITY_CHANGED"},
		{"garbled identity", func(t *testing.T, dir string, _ map[string][]byte) {
			write(t, filepath.Join(dir, "identity.json"), []byte("{"))
		}, "LOG_CORRUPT"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, newSigner(t))
			l := open(t, cfg)
			for range 3 {
				add(t, l, "entry")
			}
			closeLog(t, l)
			before := map[string][]byte{".state/treeState": read(t, filepath.Join(cfg.Dir, ".state/treeState"))}
			l = open(t, cfg)
			for range 3 {
				add(t, l, "entry")
			}
			closeLog(t, l)
			tt.damage(t, cfg.Dir, before)
			checkpoint := read(t, filepath.Join(cfg.Dir, "checkpoint"))
			for range 2 { // and the refusal must not heal it by publishing
				l, err := posix.Open(t.Context(), cfg)
				if err == nil {
					closeLog(t, l)
				}
				wantCode(t, err, refusalCode(tt.code))
			}
			if string(read(t, filepath.Join(cfg.Dir, "checkpoint"))) != string(checkpoint) {
				t.Error("the published checkpoint was changed")
			}
		})
	}
}

// A crash before the first checkpoint was published leaves a log that opens.
func TestMissingCheckpointIsPublishedAgain(t *testing.T) {
	t.Parallel()
	cfg := config(t, newSigner(t))
	l := open(t, cfg)
	add(t, l, "entry")
	closeLog(t, l)
	remove(t, filepath.Join(cfg.Dir, "checkpoint"))
	l = open(t, cfg)
	add(t, l, "entry")
	closeLog(t, l)
	cp, err := tlog.ParseCheckpoint(string(read(t, filepath.Join(cfg.Dir, "checkpoint"))))
	if err != nil || cp.Size != 2 {
		t.Errorf("published %v, %v", cp, err)
	}
}

func TestDamagedBundleIsNotHandedOut(t *testing.T) {
	t.Parallel()
	cfg := config(t, newSigner(t))
	l := open(t, cfg)
	add(t, l, "entry zero")
	add(t, l, "entry one")
	flip(t, filepath.Join(cfg.Dir, "tile/entries/000.p/2"), 5)
	_, err := l.Entry(t.Context(), 0)
	wantCode(t, err, posix.CodeCorrupt)
	if _, err := l.Entry(t.Context(), 1); err != nil {
		t.Errorf("the undamaged entry: %v", err)
	}
	remove(t, filepath.Join(cfg.Dir, "tile/entries/000.p/2"))
	_, err = l.Entry(t.Context(), 1)
	wantCode(t, err, posix.CodeCorrupt)
}

// A disk error stops the log: what is on disk is unknown until it is read again.
func TestDiskErrorStopsTheLog(t *testing.T) {
	t.Parallel()
	cfg := config(t, newSigner(t))
	l := open(t, cfg)
	add(t, l, "entry")
	entries := filepath.Join(cfg.Dir, "tile/entries")
	if err := os.Rename(entries, entries+".away"); err != nil {
		t.Fatal(err)
	}
	write(t, entries, nil) // a file where a directory must be
	_, err := l.Add(t.Context(), []byte("lost"))
	wantCode(t, err, posix.CodeWriteFailed)
	remove(t, entries)
	if err := os.Rename(entries+".away", entries); err != nil {
		t.Fatal(err)
	}
	_, err = l.Add(t.Context(), []byte("still refused"))
	wantCode(t, err, posix.CodeWriteFailed)
	wantCode(t, l.Health(), posix.CodeWriteFailed)
	if e, err := l.Entry(t.Context(), 0); err != nil {
		t.Errorf("reading a stopped log: %v, %v", e, err)
	}
	closeLog(t, l)
	l = open(t, cfg)
	if e := add(t, l, "after a restart"); e.Index != 1 {
		t.Errorf("index %d", e.Index)
	}
}

// Someone who writes to the directory behind our back is noticed before anything is signed.
func TestForeignWriterIsNoticed(t *testing.T) {
	t.Parallel()
	cfg := config(t, newSigner(t))
	l := open(t, cfg)
	add(t, l, "entry")
	old := read(t, filepath.Join(cfg.Dir, ".state/treeState"))
	add(t, l, "entry")
	write(t, filepath.Join(cfg.Dir, ".state/treeState"), old)
	_, err := l.Add(t.Context(), []byte("would become entry 1 a second time"))
	wantCode(t, err, posix.CodeCorrupt)
	wantCode(t, l.Health(), posix.CodeCorrupt)
	closeLog(t, l)
}

// A full disk refuses, and the log goes on when there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	mount := t.TempDir()
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := newSigner(t)
	cfg := config(t, s)
	cfg.Dir = filepath.Join(mount, "log")
	l := open(t, cfg)
	add(t, l, "entry")
	filler := filepath.Join(mount, "filler")
	for n := 512 << 10; n > 0; n /= 2 { // fill to the last page
		f, err := os.OpenFile(filler, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = f.Write(make([]byte, n))
		}
		f.Close()
	}
	_, err := l.Add(t.Context(), []byte("no room"))
	wantCode(t, err, posix.CodeDiskFull)
	if err := l.Health(); err != nil {
		t.Fatalf("the log stopped: %v", err)
	}
	remove(t, filler)
	e := add(t, l, "room again")
	mustVerify(t, l, e)
	if e.Index != 1 {
		t.Errorf("index %d", e.Index)
	}
	closeLog(t, l)
	checkDir(t, cfg.Dir, s)
}
