package server_test

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/testenv/oidctest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
)

// logSize is how many entries the log has before the attestation that tells it.
func (l *life) logSize(t testing.TB) int64 {
	t.Helper()
	return l.digests(t, l.ctx, subject("probe", rand8(t))).GetAttestation().GetLogIndex()
}

// upload attests one artifact by its bytes, as prod demands.
func (l *life) upload(t testing.TB, ctx context.Context, name, content string) *assayv1.AttestResult {
	t.Helper()
	result, err := uploadAll(ctx, l.conn, append([]*assayv1.AttestRequest{headerMessage(1)}, artifactMessages(name, []byte(content))...))
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// TestAskedNamesMakeNoDecisions: what a caller can vary and no evidence knows
// makes no log entry and no row.
func TestAskedNamesMakeNoDecisions(t *testing.T) {
	t.Parallel()
	l := newWorld(t, "https://assay.test").start(t).login(t)
	l.digests(t, l.ctx, subject("app", "app"))
	before, passed := l.logSize(t), assayv1.VerificationResult_VERIFICATION_RESULT_PASSED
	for i, tt := range []struct {
		about string
		pass  bool
	}{{"app", true}, {"nobody attested", false}} {
		for batch := range 3 {
			var asked []*assayv1.Subject
			for n := range 100 {
				s := subject(fmt.Sprintf("n%d-%d", batch, n), tt.about)
				if batch == 2 {
					s.Digest["sha384"] = fmt.Sprintf("%096x", n)
				}
				asked = append(asked, s)
			}
			resp := l.verify(t, "dev", asked...)
			for n, d := range resp.GetDecisions() {
				if (d.GetVerificationResult() == passed) != tt.pass {
					t.Fatalf("%q: %s", tt.about, d.GetReason())
				}
				if d.GetSubject().GetName() != asked[n].GetName() || !maps.Equal(d.GetSubject().GetDigest(), asked[n].GetDigest()) {
					t.Fatalf("asked about %v, answered about %v", asked[n], d.GetSubject())
				}
				if d.GetDecisionId() != resp.GetDecisions()[0].GetDecisionId() {
					t.Fatalf("%s has a decision of its own", asked[n].GetName())
				}
			}
		}
		if n := l.count(t, "decisions"); n != i+1 {
			t.Errorf("%d decisions; want %d", n, i+1)
		}
	}
	if after := l.logSize(t); after != before+2 { // one summary, and the probe before
		t.Errorf("600 asks made %d log entries; want 1", after-before-1)
	}
	if n := l.count(t, "asks"); n != 600 {
		t.Errorf("%d asks on record; want 600", n)
	}
}

// TestDecisionResource: what is stored and signed is what the evidence knows.
func TestDecisionResource(t *testing.T) {
	t.Parallel()
	l := newWorld(t, "https://assay.test").start(t).login(t)
	content := []byte("the artifact")
	l.upload(t, l.ctx, "app", string(content))
	sha256, sum := sha256Hex(content), sha512.Sum512(content)
	sha512, unknown := hex.EncodeToString(sum[:]), strings.Repeat("11", 48)
	for _, tt := range []struct {
		name          string
		asked, signed map[string]string
		signedName    string
	}{
		{"app", map[string]string{"sha256": sha256}, map[string]string{"sha256": sha256}, "app"},
		{"evil", map[string]string{"sha256": sha256}, map[string]string{"sha256": sha256}, ""},
		{"", map[string]string{"sha256": sha256}, map[string]string{"sha256": sha256}, ""},
		{"app", map[string]string{"sha256": sha256, "sha512": sha512, "sha384": unknown}, map[string]string{"sha256": sha256, "sha512": sha512}, "app"},
	} {
		d := l.decide(t, "dev", &assayv1.Subject{Name: tt.name, Digest: tt.asked}, "ALLOWED")
		stored, err := assayv1.NewAuditServiceClient(l.conn).GetDecision(l.ctx, &assayv1.GetDecisionRequest{DecisionId: d.GetDecisionId()})
		if err != nil {
			t.Fatal(err)
		}
		if s := stored.GetDecision().GetSubject(); s.GetName() != tt.signedName || !maps.Equal(s.GetDigest(), tt.signed) {
			t.Errorf("asked %q %v: the row is about %v", tt.name, tt.asked, s)
		}
		want := tt.signedName
		if want == "" {
			want = "sha256:" + sha256
		}
		sum := summaryOf(t, d)
		if s := sum.statement.Subjects[0]; sum.ResourceURI != want || s.Name != want || !maps.Equal(s.Digest, tt.signed) {
			t.Errorf("asked %q %v: the summary is about %s %v", tt.name, tt.asked, sum.ResourceURI, s)
		}
	}
}

// TestNewDecisionsAreLimited: one class of caller makes so many decisions and no
// more, and what was decided is answered all the same.
func TestNewDecisionsAreLimited(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	frozen := time.Now()
	w.now = func() time.Time { return frozen.Add(time.Duration(w.ahead.Load())) }
	l := w.start(t).login(t)
	ask := func(l *life, batch int) error {
		var asked []*assayv1.Subject
		for n := range 100 {
			asked = append(asked, subject("", fmt.Sprint("nobody attested", batch, n)))
		}
		_, err := assayv1.NewVerificationServiceClient(l.conn).Verify(l.ctx, &assayv1.VerifyRequest{Environment: "dev", Subjects: asked})
		return err
	}
	var group errgroup.Group
	for batch := range 20 {
		group.Go(func() error { return ask(l, batch) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	wantReason(t, ask(l, 20), codes.Unavailable, "OVERLOADED")
	if n := l.count(t, "decisions"); n != 2000 {
		t.Errorf("%d decisions; want 2000", n)
	}
	if err := ask(l, 7); err != nil {
		t.Errorf("what was decided is not answered: %v", err)
	}
	w.advance(time.Second) // 200 more
	for _, batch := range []int{20, 21} {
		if err := ask(l, batch); err != nil {
			t.Errorf("a second later: %v", err)
		}
	}
	wantReason(t, ask(l, 22), codes.Unavailable, "OVERLOADED")
	other := "octo-org/octo-app/.github/workflows/other.yml@refs/heads/main"
	if err := ask(l.login(t, oidctest.Claims{"workflow_ref": other}), 23); err != nil {
		t.Errorf("another class of caller pays for the first: %v", err)
	}
}

// TestForeignAttestationsDoNotVeto: another repository can attest any digest, any
// number of times, and keeps no artifact of others out.
func TestForeignAttestationsDoNotVeto(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	const content = "the artifact"
	good := l.upload(t, l.ctx, "app", content)
	app := subject("app", content)
	l.decide(t, "prod", app, "ALLOWED")
	foreign := l.session(t, w.issuer.Mint(w.instance, oidctest.Claims{
		"repository": "octo-org/other", "repository_id": "4711", "event_name": "pull_request", "ref": "refs/pull/7/merge",
		"workflow_ref": "octo-org/other/.github/workflows/ci.yml@refs/pull/7/merge",
	}))
	var group errgroup.Group
	for i := range 65 {
		group.Go(func() error {
			_, err := assayv1.NewAttestationServiceClient(l.conn).AttestDigests(foreign, &assayv1.AttestDigestsRequest{
				Subjects: []*assayv1.Subject{subject(fmt.Sprint("x", i), content)},
			})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, life := range []string{"the same", "the next"} {
		for range 2 { // a set too large to keep is put together again
			d := l.decide(t, "prod", app, "ALLOWED")
			if ids := d.GetAttestationIds(); len(ids) != 1 || ids[0] != good.GetAttestation().GetAttestationId() {
				t.Errorf("in %s life it rests on %v", life, ids)
			}
			if n := len(summaryOf(t, d).InputAttestations); n != 64 {
				t.Errorf("in %s life %d attestations were looked at; want 64", life, n)
			}
		}
		l.login(t)
		l.stop()
		l = w.start(t).login(t)
	}
	if d := l.decide(t, "prod", subject("x", "nobody attested"), "NO_ATTESTATION"); strings.Contains(d.GetMessage(), "looked at") {
		t.Errorf("nothing was left out, and it says %q", d.GetMessage())
	}
}

// TestChangedRowIsVerifiedAgain: evidence that is remembered does not vouch for
// what its row has become.
func TestChangedRowIsVerifiedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	s := subject("app", "app")
	l.digests(t, l.ctx, s)
	l.decide(t, "dev", s, "ALLOWED")
	if _, err := database(t, w.data).ExecContext(t.Context(), "UPDATE bundles SET bundle = CAST('{}' AS BLOB)"); err != nil {
		t.Fatal(err)
	}
	second := l.digests(t, l.session(t, w.issuer.Mint(w.instance, runClaims(2))), s).GetAttestation()
	inputs := summaryOf(t, l.decide(t, "dev", s, "ALLOWED")).InputAttestations
	if len(inputs) != 1 || inputs[0].Digest["sha256"] != sha256Hex(second.GetBundle()) {
		t.Errorf("it rests on %v; want the one bundle that verifies", inputs)
	}
	if !strings.Contains(l.logs.String(), "stored attestation does not verify") {
		t.Error("nothing is said of the row that does not verify")
	}
}

// TestAsksAreShown: who asked can be read back.
func TestAsksAreShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	s := subject("app", "app")
	l.digests(t, l.ctx, s)
	for range 102 {
		l.decide(t, "dev", s, "ALLOWED")
	}
	w.advance(time.Minute)
	d := l.decide(t, "dev", s, "ALLOWED")
	got, err := assayv1.NewAuditServiceClient(l.conn).GetDecision(l.ctx, &assayv1.GetDecisionRequest{DecisionId: d.GetDecisionId()})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetAskCount() != 103 || len(got.GetAsks()) != 100 {
		t.Fatalf("%d of %d asks; want 100 of 103", len(got.GetAsks()), got.GetAskCount())
	}
	newest, next := got.GetAsks()[0], got.GetAsks()[1]
	if newest.GetCaller() != d.GetCaller().GetDisplayName() || newest.GetCaller() == "" {
		t.Errorf("asked by %q; want %q", newest.GetCaller(), d.GetCaller().GetDisplayName())
	}
	if ahead := newest.GetAskTime().AsTime().Sub(next.GetAskTime().AsTime()); ahead < time.Minute {
		t.Errorf("the newest is %s after the one before", ahead)
	}
}
