package server_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	tessera "github.com/transparency-dev/tessera/client"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
	"github.com/assay-build/assay/internal/verify"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
)

// rotateLog rotates the log of a service that stands still, as `assayd keys rotate log`
// does: the old key signs for all there is first.
func (k *keyed) rotateLog(t testing.TB) (old, next signing.KeyEntry) {
	t.Helper()
	old = k.active(t, signing.RoleLog, "")
	if err := k.settle(t); err != nil {
		t.Fatal(err)
	}
	next = k.rotate(t, signing.RoleLog, "")
	return old, next
}

func (k *keyed) settle(t testing.TB) error {
	t.Helper()
	cfg := server.Config{Data: k.data, Now: k.now, Logger: slog.New(slog.DiscardHandler)}
	k.reachAWS(&cfg)
	return server.SettleLog(t.Context(), &cfg, server.KeyOpeners(&cfg))
}

// kill leaves of the world what a power loss would: what is on disk while a service runs,
// before the first checkpoint was published.
func (k *keyed) kill(t testing.TB, l *life) {
	t.Helper()
	left := t.TempDir()
	if err := os.CopyFS(left, os.DirFS(k.data)); err != nil {
		t.Fatal(err)
	}
	private := func(path string, d fs.DirEntry, err error) error { // CopyFS makes files for all to read
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o600)
	}
	if err := errors.Join(filepath.WalkDir(left, private), os.RemoveAll(filepath.Join(left, "log", "checkpoint"))); err != nil {
		t.Fatal(err)
	}
	l.stop()
	k.data = left
}

// TestLogRotation: the log ends and another begins, after a clean stop or a power loss.
// What the old one proved stands for everybody, and it is served to the last entry.
func TestLogRotation(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		crash bool
		edits []func(*server.Config)
	}{
		{"stopped", false, nil},
		{"killed", true, nil},
		{"certificates, rekor-v2", false, []func(*server.Config){inCertificateMode, func(c *server.Config) { c.Log.EntryFormat = string(tlog.RekorV2) }}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := newKeyed(t, tt.edits...)
			l := k.begin(t)
			made := []issued{l.attested(t, "one"), l.attested(t, "two")}
			l.decide(t, "dev", made[0].subject, "ALLOWED")
			before := l.snapshot(t, "before")
			if tt.crash {
				k.kill(t, l)
			} else {
				l.stop()
			}
			k.advance(time.Hour)
			old, next := k.rotateLog(t)
			l = k.begin(t)

			made = append(made, l.attested(t, "three"))
			after := l.snapshot(t, "after")
			if n := len(after.sigstore.RekorLogs()); n != 2 {
				t.Errorf("%d logs in the trusted root", n)
			}
			for n, i := range made {
				after.agreed(t, i, "")
				l.decide(t, "dev", i.subject, "ALLOWED")
				log, want := old, refusal.Code("")
				if n == 2 {
					log, want = next, verify.CodeLogUnknown
				}
				if id := hex.EncodeToString(i.entry.LogID); id != log.KeyID {
					t.Errorf("%s is in log %s", i.subject.GetName(), id)
				}
				if i.leaf == nil {
					before.agreed(t, i, want)
				}
			}
			k.served(t, l, old, made[:2])
			// The head of the tree that the database knows is of the new log by now.
			l.stop()
			l = k.begin(t)
			l.decide(t, "dev", made[0].subject, "ALLOWED")
			l.stop()
		})
	}
}

// served looks at a retired log as the world sees it: its checkpoint is signed by its key, covers
// every entry on disk, and contains the trees that bundles were proven in.
func (k *keyed) served(t testing.TB, l *life, log signing.KeyEntry, bundles []issued) {
	t.Helper()
	key, err := tlog.NewKey("assay.test", log.Public)
	if err != nil {
		t.Fatal(err)
	}
	address := l.Server + "/log/retired/" + log.KeyID + "/"
	base, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	fetcher, err := tessera.NewHTTPFetcher(base, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	text, err := fetcher.ReadCheckpoint(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", address, err)
	}
	cp, err := tlog.ParseCheckpoint(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := tlog.VerifyCheckpoint(cp, key.Host, key.Public, key.Hint); err != nil {
		t.Fatal(err)
	}
	frozen, err := posix.OpenFrozen(t.Context(), filepath.Join(k.data, log.Shard), key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if cp.Size != frozen.Size() || cp.Size < uint64(len(bundles)) {
		t.Errorf("the checkpoint that is served covers %d entries of %d", cp.Size, frozen.Size())
	}
	proofs, err := tessera.NewProofBuilder(t.Context(), cp.Size, fetcher.ReadTile)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bundles {
		e := b.entry
		consistency, err := proofs.ConsistencyProof(t.Context(), uint64(e.TreeSize), cp.Size)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.VerifyConsistency(uint64(e.TreeSize), cp.Size, consistency, e.RootHash, cp.RootHash); err != nil {
			t.Error(err)
		}
		inclusion, err := proofs.InclusionProof(t.Context(), uint64(e.LogIndex))
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.VerifyInclusion(uint64(e.LogIndex), cp.Size, tlog.LeafHash(e.CanonicalizedBody), inclusion, cp.RootHash); err != nil {
			t.Error(err)
		}
	}
}

// TestRetiredLogPaths: a retired log is found by its id and by nothing else.
func TestRetiredLogPaths(t *testing.T) {
	t.Parallel()
	k := newKeyed(t)
	l := k.begin(t)
	l.attested(t, "one")
	l.stop()
	old, next := k.rotateLog(t)
	l = k.begin(t)
	retired := l.Server + "/log/retired/"
	for path, want := range map[string]int{
		old.KeyID + "/checkpoint": 200, old.KeyID + "/tile/0/000.p/1": 200, old.KeyID + "/tile/entries/000.p/1": 200,
		old.KeyID + "/tile/0/000.p/2": 404, old.KeyID + "/identity.json": 404, old.KeyID + "/../../keys/keyset.json": 404,
		old.KeyID + "/%2e%2e/keys/log.pem": 404, next.KeyID + "/checkpoint": 404, "checkpoint": 404, old.Shard + "/checkpoint": 404,
	} {
		if code, _ := httpGet(t, retired+path); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
}

// TestLogKeyUnderRunningService: the log's key does not change under a service. Where
// somebody has it changed all the same, the service says so and answers nothing.
func TestLogKeyUnderRunningService(t *testing.T) {
	t.Parallel()
	k := newKeyed(t)
	l := k.begin(t)
	one := l.attested(t, "one")
	if _, err := signing.LockLog(t.Context(), filepath.Join(k.data, "log")); refusal.CodeOf(err) != signing.CodeServiceRunning {
		t.Errorf("LockLog: %v", err)
	}
	if err := k.settle(t); refusal.CodeOf(err) != posix.CodeLocked {
		t.Errorf("SettleLog: %v", err)
	}
	l.decide(t, "dev", one.subject, "ALLOWED")
	k.rotate(t, signing.RoleLog, "")
	l.unanswered(t, one, string(server.CodeLogKeyChanged))
	l.stop()
	l = k.begin(t)
	l.decide(t, "dev", one.subject, "ALLOWED")
	l.snapshot(t, "after").agreed(t, one, "")
}

// unanswered demands that nothing is answered that depends on the keys, for a reason.
func (l *life) unanswered(t testing.TB, known issued, reason string) {
	t.Helper()
	_, err := assayv1.NewVerificationServiceClient(l.conn).Verify(l.ctx, &assayv1.VerifyRequest{Environment: "dev", Subjects: []*assayv1.Subject{known.subject}})
	l.failed(t, "Verify", err, reason)
	_, err = assayv1.NewAttestationServiceClient(l.conn).AttestDigests(l.ctx, &assayv1.AttestDigestsRequest{Subjects: []*assayv1.Subject{subject("more", "more")}})
	l.failed(t, "AttestDigests", err, reason)
	_, err = assayv1.NewAuditServiceClient(l.conn).GetTrustedRoot(l.ctx, &assayv1.GetTrustedRootRequest{})
	l.failed(t, "GetTrustedRoot", err, reason)
	if code, _ := httpGet(t, l.Server+"/trusted_root.json"); code != http.StatusInternalServerError {
		t.Errorf("/trusted_root.json: %d", code)
	}
}

func (l *life) failed(t testing.TB, what string, err error, reason string) {
	t.Helper()
	if got, _ := reasonOf(err); err == nil || reason != "" && got != reason {
		t.Errorf("%s: %v; want %s", what, err, reason)
	}
}

// TestLogRestoredAfterRotation: with two logs it is still noticed that one of them, or the
// database, is of another moment.
func TestLogRestoredAfterRotation(t *testing.T) {
	t.Parallel()
	k := newKeyed(t)
	l := k.begin(t)
	l.attested(t, "one")
	l.stop()
	first := filepath.Join(t.TempDir(), "first")
	copyLog(t, filepath.Join(k.data, "log"), first)
	l = k.begin(t)
	one := l.attested(t, "two")
	l.stop()
	full := filepath.Join(t.TempDir(), "full")
	copyLog(t, filepath.Join(k.data, "log"), full)
	_, next := k.rotateLog(t)

	refused := func(what string, want refusal.Code) {
		t.Helper()
		cfg, _ := k.config(t, k.edits...)
		if _, err := server.New(t.Context(), cfg); refusal.CodeOf(err) != want {
			t.Errorf("%s: got %v, want %s", what, err, want)
		}
	}
	// The head is of the retired log, which takes part in nothing else.
	copyLog(t, first, filepath.Join(k.data, "log"))
	refused("the retired log is an older copy", server.CodeLogBehind)
	if err := os.RemoveAll(filepath.Join(k.data, "log")); err != nil {
		t.Fatal(err)
	}
	refused("the retired log is gone", server.CodeLogBehind)
	copyLog(t, full, filepath.Join(k.data, "log"))
	l = k.begin(t)
	l.attested(t, "three")
	l.stop()

	shard, copied := filepath.Join(k.data, next.Shard), filepath.Join(t.TempDir(), "shard")
	copyLog(t, shard, copied)
	if err := os.RemoveAll(shard); err != nil {
		t.Fatal(err)
	}
	refused("the new log is gone", server.CodeLogBehind)
	copyLog(t, copied, shard)
	tile := filepath.Join(k.data, "log", "tile", "0", "000.p", "2")
	was, err := os.ReadFile(tile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tile, bytes.Repeat([]byte{7}, len(was)), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a tile of the retired log has changed", posix.CodeCorrupt)
	if err := os.WriteFile(tile, was, 0o600); err != nil {
		t.Fatal(err)
	}
	l = k.begin(t)
	l.decide(t, "dev", one.subject, "ALLOWED")
}

// TestPendingAcrossLogRotation: what a crash left between the log and the database is
// finished in the log of now, under the keys of now where those of then have run out.
func TestPendingAcrossLogRotation(t *testing.T) {
	t.Parallel()
	for name, rotated := range map[string]bool{"the log alone": false, "the attestation key too": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKeyed(t)
			l := k.begin(t)
			l.attested(t, "beside")
			s := subject("good", "good")
			was := l.digests(t, l.ctx, s).GetAttestation()
			one := issuedOf(t, s, was.GetBundle())
			l.stop()
			begun := uncomplete(t, k.world, was.GetAttestationId(), nil)
			k.begin(t).stop() // finishes it
			begun.Log, begun.LogSizeBefore = one.entry.LogID, 1
			uncomplete(t, k.world, was.GetAttestationId(), begun)
			old, next := k.rotateLog(t)
			if rotated {
				k.rotate(t, signing.RoleAttestation, "")
			}
			k.advance(time.Hour)

			l = k.begin(t)
			if n := l.count(t, "pending"); n != 0 {
				t.Errorf("%d pending:\n%s", n, l.logs)
			}
			done := issuedOf(t, s, l.attestation(t, l.ctx, was.GetAttestationId()).GetBundle())
			if id := hex.EncodeToString(done.entry.LogID); id != next.KeyID || id == old.KeyID || done.entry.LogIndex != 0 {
				t.Errorf("finished as entry %d of log %s", done.entry.LogIndex, id)
			}
			if (done.hint != one.hint) != rotated {
				t.Errorf("signed by %s, begun by %s", done.hint, one.hint)
			}
			l.snapshot(t, "now").agreed(t, done, "")
			l.decide(t, "dev", s, "ALLOWED")
			again := l.digests(t, l.ctx, s)
			if !again.GetRepeated() || !bytes.Equal(again.GetAttestation().GetBundle(), done.bundle) {
				t.Error("attested anew")
			}
		})
	}
}

// TestLogRotationUnsettled: the log of a stolen key may have to be left as a crash left it.
// The service starts, shows as much as was published, and knows the rest.
func TestLogRotationUnsettled(t *testing.T) {
	t.Parallel()
	k := newKeyed(t)
	l := k.begin(t)
	one := l.attested(t, "one")
	k.kill(t, l)
	old := k.active(t, signing.RoleLog, "")
	k.change(t, signing.RevokeKey{KeyID: old.KeyID, Reason: signing.ReasonKeyCompromise, Rotate: true})
	l = k.begin(t)
	l.snapshot(t, "now").agreed(t, one, verify.CodeLogUnknown)
	l.decide(t, "dev", one.subject, string(server.CodeStoredEvidenceInvalid))
	if code, _ := httpGet(t, l.Server+"/log/retired/"+old.KeyID+"/tile/0/000.p/1"); code != http.StatusNotFound {
		t.Errorf("an entry that no checkpoint covers is served: %d", code)
	}
	two := l.attested(t, "two")
	l.decide(t, "dev", two.subject, "ALLOWED")
}
