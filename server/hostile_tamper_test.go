package server_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/store"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
)

// tampered is a data directory with something in it worth forging, as it is while
// no service runs on it.
type tampered struct {
	world         *world
	clean         []byte // the database, untouched
	foreign       []byte // a good bundle about evil, of another instance
	summary       []byte // a good summary: good may be deployed to dev
	good, other   *assayv1.Attestation
	twin          *assayv1.Attestation // of good's artifact too
	denial        *assayv1.Decision    // evil, dev
	goodS, otherS *assayv1.Subject
	evil          *assayv1.Subject
}

func newTampered(t *testing.T) *tampered {
	t.Helper()
	x := &tampered{
		world: newWorld(t, "https://assay.test"),
		goodS: subject("good", "good"), otherS: subject("other", "other"), evil: subject("evil", "evil"),
	}
	l := x.world.start(t).login(t)
	x.good = l.upload(t, l.ctx, "good", "good").GetAttestation()
	x.other = l.digests(t, l.ctx, x.otherS).GetAttestation()
	x.summary = l.decide(t, "dev", x.goodS, "ALLOWED").GetVerificationSummary()
	x.denial = l.decide(t, "dev", x.evil, "NO_ATTESTATION")
	x.twin = l.digests(t, l.session(t, l.Issuer.Mint(l.world.instance, runClaims(1))), subject("twin", "good")).GetAttestation()
	l.stop()
	var err error
	if x.clean, err = os.ReadFile(x.file()); err != nil {
		t.Fatal(err)
	}
	stranger := newWorld(t, "https://assay.test").start(t)
	stranger.login(t)
	x.foreign = stranger.digests(t, stranger.ctx, x.evil).GetAttestation().GetBundle()
	stranger.stop()
	return x
}

func (x *tampered) file() string { return filepath.Join(x.world.data, "assay.db") }

// alter puts the untouched database back, changes it, and starts the service.
func (x *tampered) alter(t *testing.T, change func(exec func(rows int64, query string, args ...any))) *life {
	t.Helper()
	for _, name := range []string{x.file() + "-wal", x.file() + "-shm"} {
		if err := os.RemoveAll(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(x.file(), x.clean, 0o600); err != nil {
		t.Fatal(err)
	}
	db := database(t, x.world.data)
	change(func(rows int64, query string, args ...any) {
		t.Helper()
		res, err := db.ExecContext(t.Context(), query, args...)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		if n, _ := res.RowsAffected(); n != rows {
			t.Fatalf("%s: %d rows, want %d", query, n, rows)
		}
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return x.world.start(t).login(t)
}

// seq is the row number of an attestation.
const seq = "(SELECT seq FROM attestations WHERE id = ?)"

func raw(t *testing.T, digest string) []byte {
	t.Helper()
	b, err := hex.DecodeString(digest)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTamperedDatabase: whatever somebody writes into the database of a stopped
// service, no artifact becomes deployable by it.
func TestTamperedDatabase(t *testing.T) {
	t.Parallel()
	x := newTampered(t)
	good, other, twin := raw(t, x.good.GetAttestationId()), raw(t, x.other.GetAttestationId()), raw(t, x.twin.GetAttestationId())
	evil := raw(t, x.evil.GetDigest()["sha256"])
	flipped := bytes.Clone(x.good.GetBundle())
	flipped[len(flipped)/2] ^= 1
	reformatted := bytes.ReplaceAll(x.good.GetBundle(), []byte(`":"`), []byte(`": "`))
	set := "UPDATE bundles SET bundle = ? WHERE attestation = " + seq
	claimEvil := "INSERT INTO subjects (sha256, attestation) VALUES (?, " + seq + ")"
	both := func(exec func(int64, string, ...any), bundle []byte) {
		exec(1, set, bundle, good)
		exec(1, set, bundle, twin)
	}
	type exec = func(rows int64, query string, args ...any)
	for _, tt := range []struct {
		name, environment string
		change            func(exec)
		subject           *assayv1.Subject
		reason            string
	}{
		{"untouched", "prod", func(exec) {}, x.goodS, "ALLOWED"},
		{"one byte flipped", "dev", func(e exec) { both(e, flipped) }, x.goodS, "STORED_EVIDENCE_INVALID"},
		{"one of two damaged", "dev", func(e exec) { e(1, set, flipped, good) }, x.goodS, "ALLOWED"},
		{"reformatted", "dev", func(e exec) { both(e, reformatted) }, x.goodS, "STORED_EVIDENCE_INVALID"},
		{"cut short", "dev", func(e exec) { both(e, flipped[:100]) }, x.goodS, "STORED_EVIDENCE_INVALID"},
		{"empty", "dev", func(e exec) { both(e, []byte{}) }, x.goodS, "STORED_EVIDENCE_INVALID"},
		{"another's bundle", "dev", func(e exec) { both(e, x.other.GetBundle()) }, x.goodS, "STORED_EVIDENCE_INVALID"},
		{"two bundles swapped", "dev", func(e exec) {
			e(1, set, x.good.GetBundle(), other)
			both(e, x.other.GetBundle())
		}, x.otherS, "STORED_EVIDENCE_INVALID"},
		{"bundles of one artifact swapped", "dev", func(e exec) {
			e(1, set, x.good.GetBundle(), twin)
			e(1, set, x.twin.GetBundle(), good)
		}, x.goodS, "STORED_EVIDENCE_INVALID"},
		{"a summary for provenance", "dev", func(e exec) { both(e, x.summary) }, x.goodS, "STORED_EVIDENCE_INVALID"},
		{"evil filed under good's attestation", "dev", func(e exec) { e(1, claimEvil, evil, good) }, x.evil, "SUBJECT_MISMATCH"},
		{"another instance's bundle", "dev", func(e exec) { e(1, claimEvil, evil, good); e(1, set, x.foreign, good) }, x.evil, "STORED_EVIDENCE_INVALID"},
		{"rows deleted", "dev", func(e exec) {
			e(4, "DELETE FROM subjects") // of three and an SBOM
			e(4, "DELETE FROM subject_names")
			e(4, "DELETE FROM bundles")
			e(1, "DELETE FROM sboms")
			e(4, "DELETE FROM attestations")
		}, x.goodS, "NO_ATTESTATION"},
		{"postings deleted", "dev", func(e exec) { e(4, "DELETE FROM subjects") }, x.goodS, "NO_ATTESTATION"},
		{"another builder in the index", "prod", func(e exec) {
			e(4, "UPDATE attestations SET slsa_build_level = 3, builder_id = 'https://evil.example'")
		}, x.goodS, "ALLOWED"}, // on the evidence, not on the index
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := x.alter(t, tt.change)
			defer l.stop()
			d := l.decide(t, tt.environment, tt.subject, tt.reason)
			if tt.reason != "ALLOWED" {
				return
			}
			kept, err := assayv1.NewAuditServiceClient(l.conn).GetDecision(l.ctx, &assayv1.GetDecisionRequest{DecisionId: d.GetDecisionId()})
			if err != nil {
				t.Fatal(err)
			}
			if facts := kept.GetDecision().GetFacts(); facts["provenance.slsaBuildLevel"] != "2" {
				t.Errorf("facts %v", facts)
			}
		})
	}
}

// TestTamperedDecision: a stored decision is looked up and not believed.
func TestTamperedDecision(t *testing.T) {
	t.Parallel()
	x := newTampered(t)
	answer := func(edit func(*assayv1.Decision)) []byte {
		d := proto.CloneOf(x.denial)
		d.Caller = nil
		edit(d)
		out, err := proto.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	pass := func(d *assayv1.Decision) {
		d.VerificationResult, d.Reason, d.Message = assayv1.VerificationResult_VERIFICATION_RESULT_PASSED, "ALLOWED", "every rule agrees"
		for _, r := range d.Rules {
			r.Satisfied = true
		}
	}
	far := int64(1) << 50
	const where = " WHERE passed = 0"
	for name, tt := range map[string]struct {
		query string
		args  []any
		kept  bool // the stored decision goes on being the shared one
	}{
		"untouched":                 {"UPDATE decisions SET reason = reason" + where, nil, true},
		"says passed":               {"UPDATE decisions SET passed = 1, reason = 'ALLOWED', answer = ?" + where, []any{answer(pass)}, true},
		"passed, with a true pass":  {"UPDATE decisions SET answer = ?" + where, []any{answer(func(d *assayv1.Decision) { pass(d); d.VerificationSummary = x.summary })}, false},
		"the summary of another":    {"UPDATE decisions SET answer = ?" + where, []any{answer(func(d *assayv1.Decision) { d.VerificationSummary = x.summary })}, false},
		"no summary":                {"UPDATE decisions SET answer = ?" + where, []any{answer(func(d *assayv1.Decision) { d.VerificationSummary = nil })}, false},
		"good for ever":             {"UPDATE decisions SET expires_at = ?, answer = ?" + where, []any{far, answer(func(d *assayv1.Decision) { d.ExpireTime.Seconds += 1e6 })}, false},
		"not an answer":             {"UPDATE decisions SET answer = ?" + where, []any{[]byte("\xff\xff\xff")}, false},
		"empty":                     {"UPDATE decisions SET answer = x''" + where, nil, false},
		"the answer about good":     {"UPDATE decisions SET answer = (SELECT d.answer FROM decisions d WHERE d.passed = 1)" + where, nil, false},
		"from before it was judged": {"UPDATE decisions SET answer = ?" + where, []any{answer(func(d *assayv1.Decision) { d.DecideTime.Seconds -= 60 })}, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := x.alter(t, func(exec func(int64, string, ...any)) { exec(1, tt.query, tt.args...) })
			defer l.stop()
			d := l.decide(t, "dev", x.evil, "NO_ATTESTATION")
			if kept := d.GetDecisionId() == x.denial.GetDecisionId(); kept != tt.kept {
				t.Errorf("the stored decision is shared: %t; want %t", kept, tt.kept)
			}
			sum := summaryOf(t, d)
			if sum.VerificationResult != "FAILED" || sum.statement.Subjects[0].Digest["sha256"] != x.evil.GetDigest()["sha256"] ||
				sum.Expires.Sub(sum.TimeVerified) != time.Hour {
				t.Errorf("the summary says %+v", sum)
			}
			if got := unmet(d); len(got) != 1 {
				t.Errorf("unmet %v", got)
			}
		})
	}
}

// TestTamperedPending: whatever recovery finds in the database, it finishes only what
// the key signed. The rest stays pending, leaves no trace in the log, and stops nobody.
func TestTamperedPending(t *testing.T) {
	t.Parallel()
	x := newTampered(t)
	foreign, err := attest.ParseOwnBundle(x.foreign)
	if err != nil {
		t.Fatal(err)
	}
	own, err := attest.ParseOwnBundle(x.summary)
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), store.Config{Path: x.file()})
	if err != nil {
		t.Fatal(err)
	}
	begin := func(id string, p *attest.BundleParts, change func(*store.Pending)) {
		t.Helper()
		now := time.Now()
		row := &store.Pending{
			ID: id, Envelope: p.Envelope.Marshal(), LogBody: p.LogEntry.CanonicalizedBody,
			LeafHash: bytes.Repeat([]byte{7}, 32), Timestamp: p.Timestamps[0], CreatedAt: now,
			Record: &store.Attestation{
				ID: id, CreatedAt: now, BuilderID: x.world.instance + "/builders/github-actions/github-hosted", SLSABuildLevel: 3,
				Subjects: []store.Subject{{Name: "evil", SHA256: x.evil.GetDigest()["sha256"]}},
			},
		}
		change(row)
		if err := st.BeginAttestation(t.Context(), row); err != nil {
			t.Fatal(err)
		}
	}
	asIs := func(*store.Pending) {}
	payload, named := foreign.Envelope.Payload, sha256Hex(foreign.Envelope.Payload)
	begin(sha256Hex([]byte("another")), own, asIs)
	begin(sha256Hex(own.Envelope.Payload), own, func(p *store.Pending) {
		p.LogBody = bytes.Replace(p.LogBody, []byte(`"value":"`), []byte(`"value":"0`), 1)
	})
	begin(sha256Hex([]byte("body")), own, func(p *store.Pending) { p.LogBody = []byte("{}") })
	begin(sha256Hex([]byte("no envelope")), own, func(p *store.Pending) { p.Envelope = []byte("{}") })
	foreign.Envelope.Signatures[0].KeyID = own.PublicKeyHint // and the signature is still another's
	begin(named, foreign, asIs)
	foreign.Envelope.Payload = append(payload, ' ')
	foreign.Envelope.Signatures[0].KeyID = strings.Repeat("0", 64)
	begin(sha256Hex(foreign.Envelope.Payload), foreign, asIs)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}

	registry := prometheus.NewRegistry()
	l := x.world.start(t, func(cfg *server.Config) { cfg.Registry = registry }).login(t)
	const want = 6
	if n := l.count(t, "pending"); n != want {
		t.Errorf("%d pending, want %d", n, want)
	}
	if n := gauge(t, registry, "assay_pending_attestations"); n != want {
		t.Errorf("%v attestations are counted as pending, want %d", n, want)
	}
	next, err := attest.ParseOwnBundle(l.digests(t, l.ctx, subject("next", "next")).GetAttestation().GetBundle())
	if err != nil {
		t.Fatal(err)
	}
	if got := next.LogEntry.LogIndex; got != own.LogEntry.LogIndex+2 { // after the twin, which was the last
		t.Errorf("the next log entry is %d: what is pending was registered", got)
	}
	l.decide(t, "dev", x.evil, "NO_ATTESTATION")
	l.decide(t, "dev", x.goodS, "ALLOWED")
}

// gauge reads a metric that has no labels.
func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
