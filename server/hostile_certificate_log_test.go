package server_test

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/signing/ca"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/testenv/awstest"
	"github.com/assay-build/assay/internal/tlog"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"google.golang.org/grpc/codes"
)

// logEntries reads the whole log as anybody can, once it has at least so many.
func (l *life) logEntries(t testing.TB, atLeast int) [][]byte {
	t.Helper()
	size := 0
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(10 * time.Second); size < atLeast; {
		_, checkpoint := httpGet(t, l.Server+"/log/checkpoint")
		if _, err := fmt.Sscanf(strings.SplitN(checkpoint+"\n\n", "\n", 3)[1], "%d", &size); err != nil {
			size = 0
		}
		select {
		case <-limit:
			t.Fatalf("the log has %d entries, want %d", size, atLeast)
		case <-tick.C:
		}
	}
	var out [][]byte
	for n := 0; len(out) < size; n++ {
		path := fmt.Sprintf("/log/tile/entries/%03d", n)
		if left := size - 256*n; left < 256 {
			path += fmt.Sprintf(".p/%d", left)
		}
		code, tile := httpGet(t, l.Server+path)
		if code != http.StatusOK {
			t.Fatalf("%s: %d", path, code)
		}
		for rest := []byte(tile); len(rest) > 0; {
			length := 2 + int(binary.BigEndian.Uint16(rest))
			out = append(out, rest[2:length])
			rest = rest[length:]
		}
	}
	return out
}

// precertificate is the entry that the SCT of a bundle's certificate promises.
func (l *life) precertificate(t testing.TB, raw []byte) []byte {
	t.Helper()
	leaf := leafOf(t, raw)
	files, err := filepath.Glob(filepath.Join(l.world.data, "keys", "intermediates", "*.crt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		der, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		issuer, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(issuer.SubjectKeyId, leaf.AuthorityKeyId) {
			entry, err := ca.LogEntryOf(leaf, issuer)
			if err != nil {
				t.Fatal(err)
			}
			return entry
		}
	}
	t.Fatal("the intermediate is not kept")
	return nil
}

// TestSCTsAreKept: what the SCT of a certificate promises is in the log, once, whoever
// asks how often at the same time; and the log has no promise that nobody can explain.
func TestSCTsAreKept(t *testing.T) {
	t.Parallel()
	for _, format := range []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "https://assay.test")
			config := func(c *server.Config) { c.Log.EntryFormat = string(format) }
			l := w.start(t, shortCertificates, config).login(t)
			var mu sync.Mutex
			var wg sync.WaitGroup
			bundles := make(map[string][]byte)
			for i := range 40 {
				wg.Go(func() {
					result, err := l.tryDigests(subject("app", fmt.Sprint(i%8))) // each five times
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					bundles[result.GetAttestation().GetAttestationId()] = result.GetAttestation().GetBundle()
				})
			}
			wg.Wait()
			w.advance(6 * time.Minute) // past the intermediate's time, and the summaries' certificate
			l.stop()
			l = w.start(t, shortCertificates, config).login(t)
			for i := range 8 {
				d := l.decide(t, "dev", subject("app", fmt.Sprint(i)), "ALLOWED")
				bundles[d.GetDecisionId()] = d.GetVerificationSummary()
			}
			promised := make(map[string]bool)
			for _, raw := range bundles {
				promised[string(l.precertificate(t, raw))] = true
			}
			if len(promised) != 9 { // eight of builds, one for all summaries
				t.Errorf("%d certificates, want 9", len(promised))
			}
			found := make(map[string]int)
			for _, entry := range l.logEntries(t, 8*2+8+1) {
				if entry[0] != '{' {
					found[string(entry)]++
				}
			}
			for entry := range promised {
				if found[entry] != 1 {
					t.Errorf("a certificate is %d times in the log", found[entry])
				}
			}
			if len(found) != len(promised) {
				t.Errorf("%d certificates are in the log, %d were handed out", len(found), len(promised))
			}
		})
	}
}

// unfinished makes of the only attestation of a stopped service the row that it was before
// step [3], with edits of it; with before set, the log is put back to what it was before
// step [2].
func unfinished(t *testing.T, l *life, id, before string, edits ...func(*store.Pending)) {
	t.Helper()
	path := filepath.Join(l.world.data, "assay.db")
	st, err := store.Open(t.Context(), store.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	a, err := st.Attestation(t.Context(), id)
	if err := errors.Join(err, st.Close()); err != nil {
		t.Fatal(err)
	}
	parts, err := attest.ParseOwnBundle(a.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	leaf := tlog.LeafHash(parts.LogEntry.CanonicalizedBody)
	record := *a
	record.Bundle, record.LogIndex = nil, 0
	row := &store.Pending{
		ID: id, Envelope: parts.Envelope.Marshal(), LogBody: parts.LogEntry.CanonicalizedBody, LeafHash: leaf[:], Timestamp: parts.Timestamps[0],
		Certificate: parts.Certificate, Log: parts.LogEntry.LogID, Record: &record, CreatedAt: a.CreatedAt,
	}
	for _, e := range edits {
		e(row)
	}
	queries := []string{"DELETE FROM subjects", "DELETE FROM subject_names", "DELETE FROM bundles", "DELETE FROM attestations"}
	if before != "" {
		copyLog(t, before, filepath.Join(l.world.data, "log"))
		queries = append(queries, "DELETE FROM log_heads")
	}
	db := database(t, l.world.data)
	for _, q := range queries {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if st, err = store.Open(t.Context(), store.Config{Path: path}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(st.BeginAttestation(t.Context(), row), st.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestCertificateCrash: an attestation that a crash interrupted is finished as evidence
// that sigstore-go takes, however late: under its own certificate, or under another where
// that has run out; and each certificate is in the log once.
func TestCertificateCrash(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		format tlog.EntryFormat
		late   time.Duration
		logged bool // the crash was after step [2]
		anew   bool // it is signed again
	}{
		{tlog.RekorV1, 0, false, false}, {tlog.RekorV1, 0, true, false},
		{tlog.RekorV1, time.Hour, false, true}, {tlog.RekorV1, time.Hour, true, true},
		{tlog.RekorV2, 0, false, false}, {tlog.RekorV2, time.Hour, false, false}, {tlog.RekorV2, time.Hour, true, false},
	} {
		t.Run(fmt.Sprintf("%s, %s late, logged %t", tt.format, tt.late, tt.logged), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "https://assay.test")
			config := func(c *server.Config) { shortCertificates(c); c.Log.EntryFormat = string(tt.format) }
			w.start(t, config).stop()
			before := ""
			if !tt.logged {
				before = filepath.Join(t.TempDir(), "log")
				copyLog(t, filepath.Join(w.data, "log"), before)
			}
			l := w.start(t, config).login(t)
			good := subject("good", "good")
			old := l.digests(t, l.ctx, good).GetAttestation()
			l.stop()
			unfinished(t, l, old.GetAttestationId(), before)
			w.advance(tt.late)
			l = w.start(t, config).login(t)
			if k := l.kept(t); k.Pending != 0 || k.Attestations != 1 {
				t.Fatalf("kept %+v\n%s", k, l.logs)
			}
			done := l.attestation(t, l.ctx, old.GetAttestationId())
			if anew := !leafOf(t, done.GetBundle()).Equal(leafOf(t, old.GetBundle())); anew != tt.anew {
				t.Errorf("signed anew: %t, want %t", anew, tt.anew)
			}
			l.named(t, done.GetBundle(), releaseName, w.issuer.URL())
			l.decide(t, "dev", good, "ALLOWED")
			again := l.digests(t, l.ctx, good)
			if !again.GetRepeated() || !bytes.Equal(again.GetAttestation().GetBundle(), done.GetBundle()) {
				t.Error("attested again, it is another bundle")
			}
			entries := 4 // two, a summary and the verifier's certificate
			if tt.logged && tt.anew {
				entries += 2
			}
			all := l.logEntries(t, entries)
			if len(all) != entries {
				t.Errorf("%d entries, want %d", len(all), entries)
			}
			promised := l.precertificate(t, done.GetBundle())
			n := 0
			for _, e := range all {
				if bytes.Equal(e, promised) {
					n++
				}
			}
			if n != 1 {
				t.Errorf("the certificate is in the log %d times", n)
			}
			l.stop()
			l = w.start(t, config) // nothing is done twice
			if n := len(l.logEntries(t, entries)); n != entries {
				t.Errorf("the next life has %d entries, want %d", n, entries)
			}
		})
	}
}

// TestUnfinishedWithoutKMS: a pending attestation whose certificate has run out while the
// authority's key is away stays pending, unseen, and stops nobody; it is finished by the
// next attest of it once the key is back.
func TestUnfinishedWithoutKMS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	all := func(c *server.Config) { withKMS(cloud)(c); shortCertificates(c) }
	w.start(t, all).stop()
	w.rekey(t, all, signing.RotateKey{Role: signing.RoleCA, Ref: "awskms:///" + cloud.KMSKey("ECC_NIST_P384").ARN()})
	l := w.start(t, all).login(t)
	good := subject("good", "good")
	id := l.digests(t, l.ctx, good).GetAttestation().GetAttestationId()
	l.stop()
	unfinished(t, l, id, "")
	w.advance(time.Hour)
	cloud.World.Fail(awstest.Fault{Service: "kms", Status: 500, Code: "KMSInternalException"})
	l = w.start(t, all).login(t)
	if k := l.kept(t); k.Pending != 1 || k.Attestations != 0 {
		t.Errorf("kept %+v", k)
	}
	l.unsigned(t, "dev", good, "NO_ATTESTATION", "KMS_UNAVAILABLE")
	_, err := assayv1.NewAuditServiceClient(l.conn).GetAttestation(l.ctx, &assayv1.GetAttestationRequest{AttestationId: id})
	wantReason(t, err, codes.NotFound, "NOT_FOUND")
	_, err = l.tryDigests(good)
	wantOutage(t, err, "KMS_UNAVAILABLE")
	entries := len(l.logEntries(t, 2))
	cloud.World.Heal()
	w.advance(2 * time.Second)
	done := l.digests(t, l.ctx, good)
	if !done.GetRepeated() || done.GetAttestation().GetAttestationId() != id {
		t.Errorf("another attestation: %v", done)
	}
	l.named(t, done.GetAttestation().GetBundle(), releaseName, w.issuer.URL())
	if n := len(l.logEntries(t, entries+2)); n != entries+2 {
		t.Errorf("%d entries, want %d", n, entries+2)
	}
	if k := l.kept(t); k.Pending != 0 || k.Attestations != 1 {
		t.Errorf("kept %+v", k)
	}
}
