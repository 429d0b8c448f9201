package posix_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rekornote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
)

const testHost = "log.example.com"

// signer is a log key in memory. While broken is set it cannot sign; while gate
// is held it is slow.
type signer struct {
	key    *ecdsa.PrivateKey
	broken atomic.Bool
	gate   sync.RWMutex
}

func newSigner(tb testing.TB) *signer {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return &signer{key: key}
}

func (s *signer) Public() crypto.PublicKey { return s.key.Public() }
func (s *signer) Sign(_ context.Context, digest []byte) ([]byte, error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.broken.Load() {
		return nil, fmt.Errorf("the key is away")
	}
	return ecdsa.SignASN1(rand.Reader, s.key, digest)
}

// clock is a clock that tests set.
type clock struct{ unix atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(c.unix.Load(), 0) }

func config(tb testing.TB, s *signer) posix.Config {
	tb.Helper()
	return posix.Config{Dir: filepath.Join(tb.TempDir(), "log"), Host: testHost, Signer: s, CheckpointInterval: 100 * time.Millisecond}
}

// open opens a log and closes it when the test ends, if the test has not.
func open(tb testing.TB, cfg posix.Config) *posix.Log {
	tb.Helper()
	l, err := posix.Open(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := l.Close(context.Background()); err != nil && refusal.CodeOf(err) != posix.CodeClosed {
			tb.Error(err)
		}
	})
	return l
}

func closeLog(tb testing.TB, l *posix.Log) {
	tb.Helper()
	if err := l.Close(tb.Context()); err != nil {
		tb.Fatal(err)
	}
}

func add(tb testing.TB, l *posix.Log, body string) *posix.Entry {
	tb.Helper()
	e, err := l.Add(tb.Context(), []byte(body))
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// verifyEntry checks an entry the way a stranger would: with the key alone.
func verifyEntry(l *posix.Log, e *posix.Entry) error {
	cp, err := tlog.ParseCheckpoint(e.Checkpoint)
	if err != nil {
		return err
	}
	key := l.Key()
	if err := tlog.VerifyCheckpoint(cp, key.Host, key.Public, key.Hint); err != nil {
		return err
	}
	if cp.Origin != key.Origin(l.Format()) || cp.Size != e.TreeSize || string(cp.RootHash) != string(e.RootHash) {
		return fmt.Errorf("checkpoint %q is not that of a tree of %d", e.Checkpoint, e.TreeSize)
	}
	if e.LeafHash != tlog.LeafHash(e.Body) {
		return fmt.Errorf("leaf hash of entry %d", e.Index)
	}
	return tlog.VerifyInclusion(e.Index, cp.Size, tlog.LeafHash(e.Body), e.Hashes, cp.RootHash)
}

func mustVerify(tb testing.TB, l *posix.Log, e *posix.Entry) {
	tb.Helper()
	if err := verifyEntry(l, e); err != nil {
		tb.Fatal(err)
	}
}

func wantCode(tb testing.TB, err error, code refusal.Code) {
	tb.Helper()
	if refusal.CodeOf(err) != code {
		tb.Fatalf("got %v, want %s", err, code)
	}
}

func noteVerifier(tb testing.TB, s *signer) note.Verifier {
	tb.Helper()
	sv, err := signature.LoadVerifier(s.Public(), crypto.SHA256)
	if err != nil {
		tb.Fatal(err)
	}
	nv, err := rekornote.NewNoteVerifier(testHost, sv)
	if err != nil {
		tb.Fatal(err)
	}
	return nv
}

func bundleHashes(bundle []byte) (out [][]byte, err error) {
	var b api.EntryBundle
	if err := b.UnmarshalText(bundle); err != nil {
		return nil, err
	}
	for _, e := range b.Entries {
		out = append(out, rfc6962.DefaultHasher.HashLeaf(e))
	}
	return out, nil
}

// checkDir runs Tessera's own fsck over the directory of a closed log.
func checkDir(tb testing.TB, dir string, s *signer) {
	tb.Helper()
	fetcher := client.FileFetcher{Root: dir}
	if err := fsck.New(testHost, noteVerifier(tb, s), fetcher, bundleHashes, fsck.Opts{N: 2}).Check(tb.Context()); err != nil {
		tb.Fatalf("fsck: %v", err)
	}
}

// serve starts the log's handler on loopback and returns a client for it.
func serve(tb testing.TB, h http.Handler) (*client.HTTPFetcher, string) {
	tb.Helper()
	srv := httptest.NewServer(h)
	tb.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL + "/")
	if err != nil {
		tb.Fatal(err)
	}
	f, err := client.NewHTTPFetcher(u, srv.Client())
	if err != nil {
		tb.Fatal(err)
	}
	return f, srv.URL
}

func refusalCode(s string) refusal.Code { return refusal.Code(s) }

func read(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func write(tb testing.TB, name string, data []byte) {
	tb.Helper()
	if err := os.WriteFile(name, data, 0o644); err != nil {
		tb.Fatal(err)
	}
}

func remove(tb testing.TB, name string) {
	tb.Helper()
	if err := os.RemoveAll(name); err != nil {
		tb.Fatal(err)
	}
}

// flip changes one bit of a file.
func flip(tb testing.TB, name string, at int) {
	tb.Helper()
	b := read(tb, name)
	b[at] ^= 0x10
	write(tb, name, b)
}
