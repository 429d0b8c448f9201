package store

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
)

// What stands beside the envelope is kept with it: while it is pending, after a restart,
// and with the attestation, however that is read.
func TestDetached(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "assay.db")
	s := openAt(t, path)
	p := testPending(1)
	p.Certificate, p.Log = []byte("certificate"), []byte("log")
	p.Record.Detached = []Detached{{Kind: "ML_DSA_65", KeyID: "k", Signature: bytes.Repeat([]byte{7}, 3309)}, {Kind: "application/jose+json", Signature: []byte("{}")}}
	must(t, s.BeginAttestation(ctx, p))
	must(t, s.Close())
	s = openAt(t, path)
	pending, err := s.PendingAttestation(ctx, p.ID)
	must(t, err)
	diff(t, pending.Certificate, p.Certificate)
	diff(t, pending.Log, p.Log)
	diff(t, pending.Record.Detached, p.Record.Detached)

	// Another signature of the same statement takes its place.
	renewed := *pending
	record := *pending.Record
	record.Detached = []Detached{{Kind: "ML_DSA_65", KeyID: "new", Signature: []byte("s")}}
	renewed.Record, renewed.Envelope, renewed.LogBody, renewed.Certificate = &record, []byte("{renewed}"), []byte("renewed body"), []byte("renewed certificate")
	must(t, s.RenewAttestation(ctx, &renewed))
	must(t, s.Close())
	s = openAt(t, path)
	pending, err = s.PendingAttestation(ctx, p.ID)
	must(t, err)
	diff(t, pending, &renewed)
	wantCode(t, s.RenewAttestation(ctx, testPending(2)), CodeNotFound)

	must(t, s.CompleteAttestation(ctx, p.ID, 0, []byte("{bundle}"), LogHead{}))
	got, err := s.Attestation(ctx, p.ID)
	must(t, err)
	diff(t, got.Detached, record.Detached)
	diff(t, got.Subjects, p.Record.Subjects)
	list, _, err := s.ListAttestations(ctx, Query{})
	must(t, err)
	diff(t, list[0].Detached, record.Detached)
	wantCode(t, s.RenewAttestation(ctx, &renewed), CodeNotFound)

	for name, bad := range map[string]Detached{
		"no kind": {Signature: []byte("s")}, "empty": {Kind: "k"}, "too large": {Kind: "k", Signature: make([]byte, maxDetachedBytes+1)},
	} {
		q := testPending(3)
		q.Record.Detached = []Detached{bad}
		if err := s.BeginAttestation(ctx, q); err == nil {
			t.Errorf("%s: accepted", name)
		} else {
			wantCode(t, err, CodeRecordInvalid)
		}
	}
	q := testPending(3)
	q.Record.Detached = make([]Detached, maxDetached+1)
	wantCode(t, s.BeginAttestation(ctx, q), CodeRecordInvalid)
}

// Each log has a head of its own: an instance that begins a new shard goes on knowing what
// the one before has to have.
func TestLogHeadsOfLogs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "assay.db")
	s := openAt(t, path)
	save := func(id string, h LogHead) {
		t.Helper()
		must(t, s.SaveDecision(context.Background(), &Decision{ID: id, LogHead: &h}))
	}
	of := func(log byte, size uint64) LogHead {
		h := head(size)
		h.Log = bytes.Repeat([]byte{log}, 32)
		return h
	}
	save("before there were ids", head(9))
	save("of the same log, with its id", of(1, 8))
	save("higher", of(1, 12))
	save("another log", of(2, 1))
	for _, want := range []LogHead{head(9), of(1, 12), of(2, 1)} {
		wantHead(t, s, want)
	}
	must(t, s.Close())
	s = openAt(t, path)
	save("rises", of(2, 3))
	save("never falls", of(2, 2))
	save("nor that of the old one", of(1, 11))
	for _, want := range []LogHead{head(9), of(1, 12), of(2, 3)} {
		wantHead(t, s, want)
	}
	bad := of(2, 4)
	bad.Log = bad.Log[1:]
	wantCode(t, s.SaveDecision(context.Background(), &Decision{ID: "short", LogHead: &bad}), CodeRecordInvalid)
}
