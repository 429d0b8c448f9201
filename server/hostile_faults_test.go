package server_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

// TestLogFailure: a log that cannot be written ends attesting, loudly, and not
// reading: what was decided stays decided, and no new permission is given that
// the log does not hold.
func TestLogFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	s := subject("app", "app")
	l.digests(t, l.ctx, s)
	known := l.decide(t, "dev", s, "ALLOWED")
	entries := filepath.Join(w.data, "log", "tile", "entries")
	if err := os.Rename(entries, entries+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(entries, nil, 0o600); err != nil { // a file where a directory must be
		t.Fatal(err)
	}
	attest := func() error {
		_, err := assayv1.NewAttestationServiceClient(l.conn).AttestDigests(l.ctx, &assayv1.AttestDigestsRequest{Subjects: digests("b", okDigest)})
		return err
	}
	for range 2 {
		err := attest()
		if reason, _ := reasonOf(err); err == nil || reason != "LOG_WRITE_FAILED" || strings.Contains(err.Error(), w.data) {
			t.Errorf("attest: %v", err)
		}
	}
	if d := l.decide(t, "dev", s, "ALLOWED"); d.GetDecisionId() != known.GetDecisionId() {
		t.Error("a decision that was made is not found")
	}
	l.decide(t, "dev", digests("b", okDigest)[0], "NO_ATTESTATION") // half-made is not made
	_, err := assayv1.NewVerificationServiceClient(l.conn).Verify(l.ctx, &assayv1.VerifyRequest{Environment: "staging", Subjects: []*assayv1.Subject{s}})
	if reason, _ := reasonOf(err); reason != "LOG_WRITE_FAILED" {
		t.Errorf("a new permission: %v", err)
	}
	if code, body := httpGet(t, l.Server+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "the log does not take entries") {
		t.Errorf("readyz: %d %s", code, body)
	}
	l.stop()
	if err := os.Remove(entries); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(entries+".away", entries); err != nil {
		t.Fatal(err)
	}
	l = w.start(t).login(t)
	// The envelope was durable before the log failed, so the start has finished it.
	if n := l.count(t, "attestations"); n != 2 {
		t.Errorf("%d attestations after the restart; want 2", n)
	}
	l.decide(t, "dev", digests("b", okDigest)[0], "ALLOWED")
	if err := attest(); err != nil {
		t.Error(err)
	}
}

// smallDisk mounts a file system of its own, and returns what fills it to the
// last page and what then empties it again.
func smallDisk(t *testing.T, mount, size string) (fill, empty func()) {
	t.Helper()
	if err := os.MkdirAll(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	filler := filepath.Join(mount, "filler")
	empty = func() { _ = os.Remove(filler) }
	return func() {
		t.Helper()
		t.Cleanup(empty) // before the service stops, which publishes a checkpoint
		for n := 1 << 20; n > 0; n /= 2 {
			f, err := os.OpenFile(filler, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = f.Write(make([]byte, n))
			}
			f.Close()
		}
	}, empty
}

// TestDiskFull: without room, writes are refused with a reason that says so, nothing
// half-made shows, reads go on, and so does everything once there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	fill, empty := smallDisk(t, filepath.Join(w.data, "disk"), "16m")
	w.data = filepath.Join(w.data, "disk", "data")
	l := w.start(t).login(t)
	before := l.digests(t, l.ctx, subject("before", "before")).GetAttestation()
	known := l.decide(t, "dev", subject("before", "before"), "ALLOWED")

	big := append([]*assayv1.AttestRequest{headerMessage(1)}, artifactMessages("big", make([]byte, 20<<20))...)
	wantReason(t, upload(l.ctx, l.conn, big), codes.ResourceExhausted, "SPOOL_FULL")
	l.logs.ended(t, assayv1.AttestationService_Attest_FullMethodName, 1)
	if left, err := os.ReadDir(filepath.Join(w.data, "spool")); err != nil || len(left) != 0 {
		t.Errorf("%d uploads in the spool (%v): a full disk stays full", len(left), err)
	}
	l.digests(t, l.ctx, subject("between", "between")) // there is room again at once

	fill()
	attest := assayv1.NewAttestationServiceClient(l.conn)
	for i, n := range []int{1, 1, 100, 1000, 1, 1} {
		_, err := attest.AttestDigests(l.ctx, &assayv1.AttestDigestsRequest{Subjects: manySubjects(i, n)})
		wantReason(t, err, codes.ResourceExhausted, "STORAGE_FULL")
	}
	_, err := l.exchange(t.Context(), w.issuer.Mint(w.instance))
	wantReason(t, err, codes.ResourceExhausted, "STORAGE_FULL")
	for _, s := range []*assayv1.Subject{subject("before", "before"), subject("nobody", "nobody")} {
		resp, err := assayv1.NewVerificationServiceClient(l.conn).Verify(l.ctx, &assayv1.VerifyRequest{Environment: "dev", Subjects: []*assayv1.Subject{s}})
		if err != nil {
			wantReason(t, err, codes.ResourceExhausted, "STORAGE_FULL")
		} else if d := resp.GetDecisions()[0]; d.GetReason() != "NO_ATTESTATION" && d.GetDecisionId() != known.GetDecisionId() {
			t.Errorf("a full disk made a decision: %v", d)
		}
	}
	audit := assayv1.NewAuditServiceClient(l.conn)
	list, err := audit.ListAttestations(l.ctx, &assayv1.ListAttestationsRequest{IncludeBundles: true})
	if err != nil || len(list.GetAttestations()) != 2 {
		t.Errorf("%d attestations are listed (%v); want the two that were acknowledged", len(list.GetAttestations()), err)
	}
	got, err := audit.GetAttestation(l.ctx, &assayv1.GetAttestationRequest{AttestationId: before.GetAttestationId()})
	if err != nil || !bytes.Equal(got.GetAttestation().GetBundle(), before.GetBundle()) {
		t.Errorf("reading on a full disk: %v", err)
	}
	if code, body := httpGet(t, l.Server+"/log/checkpoint"); code != http.StatusOK {
		t.Errorf("the log's checkpoint: %d %s", code, body)
	}
	empty()
	l.digests(t, l.ctx, manySubjects(3, 1000)...) // what was refused
	l.decide(t, "dev", manySubjects(3, 1000)[999], "ALLOWED")
	if _, err := l.exchange(t.Context(), w.issuer.Mint(w.instance)); err != nil {
		t.Errorf("with room again: %v", err)
	}
	l.stop()
	allThere(t, w.start(t).login(t), 3)
}

// TestLogDiskFull: the same where only the log has no room. The envelope is then
// durable and not in the log: nobody sees it until a repeat has finished it.
func TestLogDiskFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	fill, empty := smallDisk(t, filepath.Join(w.data, "log"), "512k")
	l := w.start(t).login(t)
	before, fresh := subject("before", "before"), subject("fresh", "fresh")
	first := l.upload(t, l.ctx, "before", "before").GetAttestation()
	known := l.decide(t, "dev", before, "ALLOWED")
	fill()
	for range 3 { // the repeats find a pending row
		_, err := assayv1.NewAttestationServiceClient(l.conn).AttestDigests(l.ctx, &assayv1.AttestDigestsRequest{Subjects: []*assayv1.Subject{fresh}})
		wantReason(t, err, codes.ResourceExhausted, "LOG_DISK_FULL")
	}
	l.decide(t, "dev", fresh, "NO_ATTESTATION")
	if d := l.decide(t, "dev", before, "ALLOWED"); d.GetDecisionId() != known.GetDecisionId() {
		t.Error("a decision that was made is not found")
	}
	_, err := assayv1.NewVerificationServiceClient(l.conn).Verify(l.ctx, &assayv1.VerifyRequest{Environment: "prod", Subjects: []*assayv1.Subject{before}})
	wantReason(t, err, codes.ResourceExhausted, "LOG_DISK_FULL")
	empty()
	if a := l.digests(t, l.ctx, fresh).GetAttestation(); a.GetLogIndex() <= first.GetLogIndex() {
		t.Errorf("log index %d after %d", a.GetLogIndex(), first.GetLogIndex())
	}
	l.decide(t, "dev", fresh, "ALLOWED")
	l.decide(t, "prod", before, "ALLOWED")
	allThere(t, l, 3) // two, and the SBOM of the one that was uploaded
}

// allThere demands n attestations that verify, and nothing unfinished.
func allThere(t *testing.T, l *life, n int) {
	t.Helper()
	if n := l.count(t, "pending"); n != 0 {
		t.Errorf("%d pending", n)
	}
	v := l.verifier(t)
	list, err := assayv1.NewAuditServiceClient(l.conn).ListAttestations(l.ctx, &assayv1.ListAttestationsRequest{IncludeBundles: true})
	if err != nil || len(list.GetAttestations()) != n {
		t.Errorf("%d attestations (%v); want %d", len(list.GetAttestations()), err, n)
	}
	for _, a := range list.GetAttestations() {
		if _, err := v.VerifyOwn(a.GetBundle()); err != nil {
			t.Errorf("attestation %s: %v", a.GetAttestationId(), err)
		}
	}
}

func manySubjects(seed, n int) []*assayv1.Subject {
	out := make([]*assayv1.Subject, n)
	for i := range out {
		name := fmt.Sprintf("%s-%d-%d", strings.Repeat("n", 400), seed, i)
		out[i] = subject(name, name)
	}
	return out
}
