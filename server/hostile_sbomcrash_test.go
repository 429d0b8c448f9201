package server_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/tlog"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// unseal takes attestations out of the database of a stopped service, and where begun
// says so, leaves what was there before the log was written to: what a crash leaves.
func unseal(t *testing.T, w *world, begun bool, ids ...string) {
	t.Helper()
	path := filepath.Join(w.data, "assay.db")
	st, err := store.Open(t.Context(), store.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	var pending []*store.Pending
	for _, id := range ids {
		a, err := st.Attestation(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		pending = append(pending, pendingOf(t, a))
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	db := database(t, w.data)
	for _, id := range ids {
		for _, q := range []string{
			"DELETE FROM subjects WHERE attestation = " + seq, "DELETE FROM subject_names WHERE attestation = " + seq,
			"DELETE FROM bundles WHERE attestation = " + seq, "DELETE FROM sboms WHERE attestation = " + seq, "DELETE FROM attestations WHERE id = ?",
		} {
			if _, err := db.ExecContext(t.Context(), q, raw(t, id)); err != nil {
				t.Fatalf("%s: %v", q, err)
			}
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if !begun {
		return
	}
	if st, err = store.Open(t.Context(), store.Config{Path: path}); err != nil {
		t.Fatal(err)
	}
	for _, p := range pending {
		if err := st.BeginAttestation(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

// pendingOf is the row of an attestation before it was complete.
func pendingOf(t *testing.T, a *store.Attestation) *store.Pending {
	t.Helper()
	parts, err := attest.ParseOwnBundle(a.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	leaf := tlog.LeafHash(parts.LogEntry.CanonicalizedBody)
	record := *a
	record.Bundle, record.LogIndex = nil, 0
	if a.PredicateType == attest.PredicateCycloneDX {
		record.SBOM = &store.SBOM{Complete: true, Format: "cyclonedx"}
		if _, err := sbom.Read(bytes.NewReader(statementOf(t, a.Bundle).Predicate), func(c sbom.Component) error {
			p, err := sbom.ParsePURL(c.PURL)
			record.SBOM.Components = append(record.SBOM.Components, store.Component{
				PURL: c.PURL, Type: p.Type, Namespace: p.Namespace, Name: p.Name, Version: p.Version, Licenses: c.Licenses,
			})
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	return &store.Pending{
		ID: a.ID, Envelope: parts.Envelope.Marshal(), LogBody: parts.LogEntry.CanonicalizedBody, LeafHash: leaf[:],
		Timestamp: parts.Timestamps[0], Record: &record, CreatedAt: a.CreatedAt,
	}
}

// TestCrashBetweenSBOMAndProvenance: an SBOM is sealed before the provenance that it came
// with. Wherever the service was killed between the two, what was begun is there after
// the restart, is searched and decided on, and a repeat makes the rest and nothing twice.
func TestCrashBetweenSBOMAndProvenance(t *testing.T) {
	t.Parallel()
	app := string(zipOf(t, "package-lock.json", string(packageLock("lodash@4.17.20"))))
	for name, tt := range map[string]struct {
		crash  func(t *testing.T, w *world, sbomID, provenanceID string)
		there  bool // the SBOM, after the restart
		reason string
	}{
		"before either": {func(t *testing.T, w *world, s, p string) { unseal(t, w, false, s, p) }, false, "NO_ATTESTATION"},
		"the SBOM begun": {func(t *testing.T, w *world, s, p string) {
			unseal(t, w, false, p)
			unseal(t, w, true, s)
		}, true, "NO_ATTESTATION"},
		"the SBOM complete":    {func(t *testing.T, w *world, s, p string) { unseal(t, w, false, p) }, true, "NO_ATTESTATION"},
		"the provenance begun": {func(t *testing.T, w *world, s, p string) { unseal(t, w, true, p) }, true, "ALLOWED"},
		"both begun":           {func(t *testing.T, w *world, s, p string) { unseal(t, w, true, s, p) }, true, "ALLOWED"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "https://assay.test")
			l := w.start(t).login(t)
			first := l.upload(t, l.ctx, "app.zip", app)
			sbomID, provenanceID := first.GetSboms()[0].GetAttestationId(), first.GetAttestation().GetAttestationId()
			bundle := l.attestation(t, l.ctx, sbomID).GetBundle()
			l.stop()
			tt.crash(t, w, sbomID, provenanceID)

			l = w.start(t, withPolicy(t, sbomPolicy)).login(t)
			question := &assayv1.SearchComponentsRequest{Purl: "pkg:npm/lodash@<4.17.21"}
			check := func(there bool) {
				t.Helper()
				if n := l.count(t, "pending"); n != 0 {
					t.Errorf("%d pending", n)
				}
				found := l.search(t, l.ctx, question)
				if there != (len(found) == 1) || there && (found[0].GetAttestationId() != sbomID || !found[0].GetComplete() || found[0].GetOrigin() != assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED) {
					t.Errorf("found %v", found)
				}
				if !there {
					return
				}
				a := l.attestation(t, l.ctx, sbomID)
				if _, err := l.verifier(t).VerifyOwn(a.GetBundle()); err != nil {
					t.Error(err)
				}
				if was, is := statementOf(t, bundle), statementOf(t, a.GetBundle()); !bytes.Equal(was.Predicate, is.Predicate) {
					t.Error("another document")
				}
			}
			check(tt.there)
			l.decide(t, "prod", subject("app.zip", app), tt.reason)
			again := l.upload(t, l.ctx, "app.zip", app)
			if again.GetSboms()[0].GetAttestationId() != sbomID || again.GetAttestation().GetAttestationId() != provenanceID {
				t.Errorf("attested anew: %v", again)
			}
			if again.GetRepeated() != (tt.reason == "ALLOWED") {
				t.Errorf("repeated: %t", again.GetRepeated())
			}
			check(true)
			l.decide(t, "prod", subject("app.zip", app), "ALLOWED")
			if k := l.kept(t); k.SBOMs != 1 || k.Attestations != 1 {
				t.Errorf("%+v", k)
			}
		})
	}
}

// TestLogFailureDuringSBOM: where the log fails under the SBOM, nothing of the attest is
// acknowledged or seen, and the next start finishes what was begun.
func TestLogFailureDuringSBOM(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	l.digests(t, l.ctx, subject("claimed", "claimed"))
	entries := filepath.Join(w.data, "log", "tile", "entries")
	if err := errors.Join(os.Rename(entries, entries+".away"), os.WriteFile(entries, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	app := string(zipOf(t, "package-lock.json", string(packageLock("lodash@4.17.20"))))
	doc := cycloneDX("claimed", "pkg:npm/lodash@3.0.0")
	attach := func() error {
		_, err := uploadEvidence(l.ctx, l.conn, evidenceHeader(subject("claimed", "claimed"), -1, nil), doc, 1<<20)
		return err
	}
	attest := func() error { return l.attestAll(l.ctx, map[string][]byte{"app.zip": []byte(app)}) }
	for name, call := range map[string]func() error{"attest": attest, "attach": attach} {
		if reason, _ := reasonOf(call()); reason != "LOG_WRITE_FAILED" {
			t.Errorf("%s: %s", name, reason)
		}
	}
	nothingLeft(t, w)
	question := &assayv1.SearchComponentsRequest{Purl: "pkg:npm/lodash"}
	if found := l.search(t, l.ctx, question); len(found) != 0 {
		t.Errorf("half-made is found: %v", found)
	}
	l.stop()
	if err := errors.Join(os.Remove(entries), os.Rename(entries+".away", entries)); err != nil {
		t.Fatal(err)
	}
	l = w.start(t, withPolicy(t, sbomPolicy)).login(t)
	if n := l.count(t, "pending"); n != 0 {
		t.Errorf("%d pending", n)
	}
	if found := l.search(t, l.ctx, question); len(found) != 2 {
		t.Errorf("%d SBOMs are found after the restart", len(found))
	}
	l.decide(t, "prod", subject("app.zip", app), "NO_ATTESTATION") // its provenance was never begun
	l.decide(t, "strict", subject("claimed", "claimed"), "ALLOWED")
	for name, call := range map[string]func() error{"attest": attest, "attach": attach} {
		if err := call(); err != nil {
			t.Errorf("%s again: %v", name, err)
		}
	}
	l.decide(t, "prod", subject("app.zip", app), "ALLOWED")
	if found := l.search(t, l.ctx, question); len(found) != 2 {
		t.Errorf("%d SBOMs at last", len(found))
	}
}
