package server_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
	"github.com/assay-build/assay/server"
)

// copyLog copies a stopped log, over what is there.
func copyLog(t *testing.T, from, to string) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(to), os.CopyFS(to, os.DirFS(from))); err != nil {
		t.Fatal(err)
	}
}

// TestLogFork: a log restored from before a summary that was handed out is refused,
// however it has grown since.
func TestLogFork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	log, old, right := filepath.Join(w.data, "log"), filepath.Join(t.TempDir(), "old"), filepath.Join(t.TempDir(), "right")
	good := subject("good", "good")
	l := w.start(t).login(t)
	l.digests(t, l.ctx, good)
	l.stop()
	copyLog(t, log, old)
	l = w.start(t).login(t)
	l.decide(t, "dev", good, "ALLOWED")
	l.stop()
	copyLog(t, log, right)

	refused := func(what string) {
		t.Helper()
		cfg, _ := w.config(t)
		if _, err := server.New(t.Context(), cfg); refusal.CodeOf(err) != server.CodeLogBehind {
			t.Errorf("%s: got %v, want LOG_BEHIND_DATABASE", what, err)
		}
	}
	copyLog(t, old, log)
	refused("an older copy")

	keys, err := signing.OpenKeyset(t.Context(), filepath.Join(w.data, "keys"), signing.Config{Host: "assay.test", Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	branch, err := posix.Open(t.Context(), posix.Config{Dir: log, Host: "assay.test", Signer: keys.LogSigner()})
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"one", "two", "three"} {
		if _, err := branch.Add(t.Context(), []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := branch.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused("another branch")

	copyLog(t, right, log)
	l = w.start(t).login(t)
	l.decide(t, "dev", good, "ALLOWED")
}

// uncomplete makes of a complete attestation the pending one it was before step [3].
func uncomplete(t *testing.T, w *world, id string, was *store.Pending) *store.Pending {
	t.Helper()
	path := filepath.Join(w.data, "assay.db")
	st, err := store.Open(t.Context(), store.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	a, err := st.Attestation(t.Context(), id)
	if err := errors.Join(err, st.Close()); err != nil {
		t.Fatal(err)
	}
	db := database(t, w.data)
	for _, q := range []string{"DELETE FROM subjects", "DELETE FROM subject_names", "DELETE FROM bundles", "DELETE FROM attestations"} {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if was == nil {
		parts, err := attest.ParseOwnBundle(a.Bundle)
		if err != nil {
			t.Fatal(err)
		}
		leaf := tlog.LeafHash(parts.LogEntry.CanonicalizedBody)
		record := *a
		record.Bundle, record.LogIndex = nil, 0
		was = &store.Pending{
			ID: id, Envelope: parts.Envelope.Marshal(), LogBody: parts.LogEntry.CanonicalizedBody, LeafHash: leaf[:],
			Timestamp: parts.Timestamps[0], Record: &record, CreatedAt: a.CreatedAt,
		}
	}
	if st, err = store.Open(t.Context(), store.Config{Path: path}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(st.BeginAttestation(t.Context(), was), st.Close()); err != nil {
		t.Fatal(err)
	}
	return was
}

// TestRecoverFormat: what was begun under one entry format is finished under the
// next, as evidence, and registered in it once.
func TestRecoverFormat(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	good := subject("good", "good")
	l := w.start(t).login(t)
	id := l.digests(t, l.ctx, good).GetAttestation().GetAttestationId()
	l.stop()
	begun := uncomplete(t, w, id, nil)
	for _, tt := range []struct {
		format tlog.EntryFormat
		index  int64
	}{
		{tlog.RekorV1, 0}, // found where it is
		{tlog.RekorV2, 1}, // registered anew
		{tlog.RekorV2, 1}, // a crash before [3] again: found where it is
	} {
		l := w.start(t, func(cfg *server.Config) { cfg.Log.EntryFormat = string(tt.format) }).login(t)
		if n := l.count(t, "pending"); n != 0 {
			t.Errorf("%s: %d pending", tt.format, n)
		}
		again := l.digests(t, l.ctx, good).GetAttestation()
		if again.GetAttestationId() != id {
			t.Fatalf("%s: attested anew", tt.format)
		}
		if _, err := l.verifier(t).VerifyOwn(again.GetBundle()); err != nil {
			t.Errorf("%s: %v", tt.format, err)
		}
		parts, err := attest.ParseOwnBundle(again.GetBundle())
		if err != nil {
			t.Fatal(err)
		}
		kind, version := tt.format.KindVersion()
		if e := parts.LogEntry; e.LogIndex != tt.index || e.TreeSize != tt.index+1 || e.Kind != kind || e.Version != version {
			t.Errorf("%s: entry %d of %d is a %s %s", tt.format, e.LogIndex, e.TreeSize, e.Kind, e.Version)
		}
		l.stop()
		uncomplete(t, w, id, begun)
	}
	l = w.start(t, func(cfg *server.Config) { cfg.Log.EntryFormat = string(tlog.RekorV2) }).login(t)
	l.decide(t, "dev", good, "ALLOWED")
}
