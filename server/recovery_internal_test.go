package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/tlog/posix"
)

// newTestSealer is a sealer over real parts whose bundles check decides about.
func newTestSealer(t *testing.T, check func([]byte) error) *sealer {
	t.Helper()
	dir := t.TempDir()
	set, err := signing.OpenKeyset(t.Context(), filepath.Join(dir, "keys"), signing.Config{Host: "assay.test", Now: time.Now, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	ring := &keyring{cfg: &Config{Now: time.Now}, logger: slog.New(slog.DiscardHandler), open: func(ctx context.Context) (*signing.Keyset, error) {
		return signing.OpenKeyset(ctx, filepath.Join(dir, "keys"), signing.Config{Host: "assay.test", Now: time.Now})
	}}
	if err := ring.adopt(set); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), store.Config{Path: filepath.Join(dir, "assay.db")})
	if err != nil {
		t.Fatal(err)
	}
	log, err := posix.Open(t.Context(), posix.Config{Dir: filepath.Join(dir, "log"), Host: "assay.test", Signer: set.LogSigner()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(log.Close(context.Background()), st.Close()); err != nil {
			t.Error(err)
		}
	})
	sl := newSealer(ring, "https://assay.test", nil, log, st, time.Now, slog.New(slog.DiscardHandler))
	sl.check = func(k *keys, bundle []byte, detached []store.Detached) error {
		if err := check(bundle); err != nil {
			return err
		}
		return k.check(bundle, detached)
	}
	return sl
}

// TestRetry: what a failure left pending is finished later, but not before it is old
// enough that nothing else can be at it, and a failure in between costs one try.
func TestRetry(t *testing.T) {
	t.Parallel()
	var failure error
	s := newTestSealer(t, func([]byte) error { return failure })
	statement := &attest.Statement{
		Type: attest.StatementTypeV1, Subjects: []attest.Subject{{Name: "app", Digest: map[string]string{"sha256": hex.EncodeToString(make([]byte, 32))}}},
		PredicateType: "https://example.com/p", Predicate: []byte(`{}`),
	}
	payload, err := statement.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(payload)
	id := hex.EncodeToString(sum[:])
	p, _, err := s.sign(t.Context(), s.ring.current.Load(), nil, id, payload, &store.Attestation{PredicateType: statement.PredicateType})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.BeginAttestation(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	try := func(after time.Duration, want recovered) {
		t.Helper()
		if got, err := s.recover(t.Context(), p.CreatedAt.Add(after)); got != want || err != nil {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	try(-time.Second, recovered{})
	failure = errors.New("for now")
	try(time.Second, recovered{left: 1})
	failure = nil
	try(time.Second, recovered{finished: 1})
	try(time.Second, recovered{})
	if again, err := s.seal(t.Context(), nil, statement, &store.Attestation{}); err != nil || !again.repeated || again.LogIndex != 0 {
		t.Errorf("attested again: %+v, %v", again, err)
	}
	if n := s.log.Size(); n != 1 {
		t.Errorf("%d log entries for one statement", n)
	}
	heads, err := s.store.LogHeads(t.Context())
	if err != nil || len(heads) != 1 || heads[0].Size != 1 {
		t.Errorf("the database's heads are %+v, %v", heads, err)
	}

	// Where the context is at an end it is not the row that failed.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.broken(ctx, failure); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
