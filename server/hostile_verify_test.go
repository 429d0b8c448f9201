package server_test

import (
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/oidctest"
	"github.com/assay-build/assay/internal/verify"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// vsa is a verification summary as a program that follows SLSA reads it.
type vsa struct {
	Verifier          struct{ ID string }
	TimeVerified      time.Time
	ResourceURI       string
	Policy            struct{ Digest map[string]string }
	InputAttestations []struct {
		URI    string
		Digest map[string]string
	}
	VerificationResult string
	VerifiedLevels     []string
	Reason             string    `json:"assay_reason"`
	Expires            time.Time `json:"assay_expires"`

	statement *attest.Statement
}

func summaryOf(t testing.TB, d *assayv1.Decision) vsa {
	t.Helper()
	st := statementOf(t, d.GetVerificationSummary())
	s := vsa{statement: st}
	if err := json.Unmarshal(st.Predicate, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// unmet are the rules that a decision names as not satisfied.
func unmet(d *assayv1.Decision) (ids []string) {
	for _, r := range d.GetRules() {
		if !r.GetSatisfied() {
			ids = append(ids, r.GetRuleId())
		}
	}
	return ids
}

// TestVerifyReasons: who attested what, and what may then be deployed where.
func TestVerifyReasons(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	pull := oidctest.Claims{
		"event_name": "pull_request", "ref": "refs/pull/7/merge",
		"workflow_ref": "octo-org/octo-app/.github/workflows/release.yml@refs/pull/7/merge",
	}
	for name, claims := range map[string]oidctest.Claims{
		"hosted": nil, "self-hosted": {"runner_environment": "self-hosted"}, "pull": pull,
	} {
		l.upload(t, l.session(t, w.issuer.Mint(w.instance, claims)), name, name)
	}
	l.digests(t, l.ctx, subject("claimed", "claimed"))
	for name, tt := range map[string]struct {
		artifact, environment, reason string
		unmet                         []string
	}{
		"hosted, dev":              {"hosted", "dev", "ALLOWED", nil},
		"hosted, staging":          {"hosted", "staging", "ALLOWED", nil},
		"hosted, prod":             {"hosted", "prod", "ALLOWED", nil},
		"self-hosted, staging":     {"self-hosted", "staging", "ALLOWED", nil},
		"self-hosted, prod":        {"self-hosted", "prod", "DENIED_BY_RULE", []string{"prod-slsa-level"}},
		"pull request, prod":       {"pull", "prod", "DENIED_BY_RULE", []string{"prod-source-ref", "prod-trigger"}},
		"nobody, dev":              {"nobody", "dev", "NO_ATTESTATION", []string{"dev-known-builder"}},
		"nobody, prod":             {"nobody", "prod", "NO_ATTESTATION", []string{"prod-known-builder", "prod-no-overrides", "prod-no-sandbox", "prod-slsa-level", "prod-source-ref", "prod-subject-hashed", "prod-trigger"}},
		"unknown environment":      {"hosted", "production", "ENVIRONMENT_UNKNOWN", nil},
		"in capitals":              {"hosted", "DEV", "ENVIRONMENT_UNKNOWN", nil},
		"with a blank":             {"hosted", "dev ", "ENVIRONMENT_UNKNOWN", nil},
		"two of them":              {"hosted", "dev,prod", "ENVIRONMENT_UNKNOWN", nil},
		"a pattern":                {"hosted", "*", "ENVIRONMENT_UNKNOWN", nil},
		"told its digest, staging": {"claimed", "staging", "ALLOWED", nil},
		"told its digest, prod":    {"claimed", "prod", "DENIED_BY_RULE", []string{"prod-subject-hashed"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := l.decide(t, tt.environment, subject("whatever", tt.artifact), tt.reason)
			got := unmet(d)
			if slices.Sort(got); !slices.Equal(got, tt.unmet) {
				t.Errorf("unmet %v; want %v", got, tt.unmet)
			}
			for _, r := range d.GetRules() {
				if !r.GetSatisfied() && (r.GetMessage() == "" || r.GetRemedy() == "" || r.GetExpected() == "") {
					t.Errorf("rule %s does not say what it expects and how to mend it: %v", r.GetRuleId(), r)
				}
			}
			if s := summaryOf(t, d); s.VerificationResult == "PASSED" != (tt.reason == "ALLOWED") || s.Reason != tt.reason {
				t.Errorf("the summary says %s %s", s.VerificationResult, s.Reason)
			}
		})
	}
}

// TestVerifySandbox: what a sandbox attested is good for dev and nothing else.
func TestVerifySandbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	w.sandbox = true
	l := w.start(t).login(t)
	s := subject("app", "app")
	l.digests(t, l.ctx, s)
	l.decide(t, "dev", s, "ALLOWED")
	d := l.decide(t, "prod", s, "DENIED_BY_RULE")
	if got := unmet(d); !slices.Contains(got, "prod-slsa-level") || !slices.Contains(got, "prod-no-sandbox") {
		t.Errorf("unmet %v", got)
	}
	// The same data under a configuration that no longer calls the issuer a sandbox:
	// what was attested then does not become more than it was.
	l.stop()
	w.sandbox = false
	w.start(t).login(t, runClaims(1)).decide(t, "prod", s, "DENIED_BY_RULE")
}

// TestVerifyDigests: every digest that is asked about and known must agree.
func TestVerifyDigests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	content := []byte("the artifact")
	if _, err := uploadAll(l.ctx, l.conn, append([]*assayv1.AttestRequest{headerMessage(1)}, artifactMessages("app", content)...)); err != nil {
		t.Fatal(err)
	}
	l.digests(t, l.ctx, subject("claimed", "claimed"))
	with := func(s *assayv1.Subject, alg, hex string) *assayv1.Subject {
		out := proto.CloneOf(s)
		out.Digest[alg] = hex
		return out
	}
	app := subject("app", string(content))
	sum := sha512.Sum512(content)
	right, wrong := hex.EncodeToString(sum[:]), strings.Repeat("ab", 64)
	l.decide(t, "dev", app, "ALLOWED")
	l.decide(t, "dev", with(app, "sha512", right), "ALLOWED")
	l.decide(t, "dev", with(app, "sha512", wrong), "SUBJECT_MISMATCH")
	l.decide(t, "dev", with(subject("", ""), "sha512", right), "NO_ATTESTATION")
	l.decide(t, "dev", subject("app", "other bytes"), "NO_ATTESTATION") // a name decides nothing

	// A digest that no evidence knows is neither confirmed nor passed on: each
	// ask is answered about what was asked, and the summary is about what is known.
	for _, unknown := range []string{strings.Repeat("11", 48), strings.Repeat("22", 48)} {
		asked := with(app, "sha384", unknown)
		d := l.decide(t, "dev", asked, "ALLOWED")
		if !maps.Equal(d.GetSubject().GetDigest(), asked.GetDigest()) {
			t.Errorf("asked about %v, answered about %v", asked.GetDigest(), d.GetSubject().GetDigest())
		}
		if got := summaryOf(t, d).statement.Subjects[0].Digest; !maps.Equal(got, map[string]string{"sha256": app.GetDigest()["sha256"]}) {
			t.Errorf("the summary vouches for %v", got)
		}
	}
}

// TestVerifyMany: one bad subject fails the answer, wherever it stands.
func TestVerifyMany(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	var good []*assayv1.Subject
	for i := range 5 {
		good = append(good, subject(fmt.Sprint(i), fmt.Sprint(i)))
		l.upload(t, l.ctx, fmt.Sprint(i), fmt.Sprint(i))
	}
	if r := l.verify(t, "prod", good...); r.GetVerificationResult() != assayv1.VerificationResult_VERIFICATION_RESULT_PASSED || len(r.GetDecisions()) != 5 {
		t.Errorf("five good ones: %v", r.GetVerificationResult())
	}
	for at := range 6 {
		resp := l.verify(t, "prod", slices.Insert(slices.Clone(good), at, subject("bad", "bad"))...)
		if resp.GetVerificationResult() != assayv1.VerificationResult_VERIFICATION_RESULT_FAILED || len(resp.GetDecisions()) != 6 {
			t.Errorf("bad at %d: %s of %d", at, resp.GetVerificationResult(), len(resp.GetDecisions()))
		}
		for i, d := range resp.GetDecisions() {
			if (d.GetReason() == "ALLOWED") == (i == at) {
				t.Errorf("bad at %d: decision %d is %s", at, i, d.GetReason())
			}
		}
	}
	for reason, bad := range map[string]*assayv1.Subject{ // an error, and no partial answer
		"SUBJECT_NO_DIGEST": {Name: "none"},
		"REQUEST_INVALID":   subject("a\u202eb", "0"),
		"DIGEST_INVALID":    {Digest: map[string]string{"SHA256": okDigest}},
	} {
		_, err := assayv1.NewVerificationServiceClient(l.conn).Verify(l.ctx, &assayv1.VerifyRequest{
			Environment: "dev", Subjects: append(slices.Clone(good), bad),
		})
		wantReason(t, err, codes.InvalidArgument, reason)
	}
	for _, environment := range []string{"dev\x00", "dev\n", "\u200bdev", "dev\u00a0"} {
		_, err := assayv1.NewVerificationServiceClient(l.conn).Verify(l.ctx, &assayv1.VerifyRequest{Environment: environment, Subjects: good})
		wantReason(t, err, codes.InvalidArgument, "REQUEST_INVALID")
	}
}

// TestVerifyShared: identical asks share a decision until it expires or anything
// it rests on changes; every ask is on record.
func TestVerifyShared(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	s := subject("app", "app")
	index := func() int64 { // an attestation tells how many entries the log has
		return l.digests(t, l.ctx, subject("probe", rand8(t))).GetAttestation().GetLogIndex()
	}
	l.digests(t, l.ctx, s)
	before := index()
	asks := func() []*assayv1.Decision {
		var wg sync.WaitGroup
		out := make([]*assayv1.Decision, 20)
		for i := range out {
			wg.Go(func() { out[i] = l.decide(t, "dev", s, "ALLOWED") })
		}
		wg.Wait()
		return out
	}
	first := asks()[0]
	for _, d := range append(asks(), l.login(t, runClaims(3)).decide(t, "dev", s, "ALLOWED")) { // another run of the same workflow
		if d.GetDecisionId() != first.GetDecisionId() || string(d.GetVerificationSummary()) != string(first.GetVerificationSummary()) {
			t.Fatalf("an identical ask has a decision of its own")
		}
	}
	if got := index(); got != before+2 { // one summary, and the probe itself
		t.Errorf("41 identical asks made %d log entries; want 1", got-before-1)
	}
	if n := l.count(t, "asks"); n != 41 {
		t.Errorf("%d asks on record; want 41", n)
	}
	other := func(why string, d *assayv1.Decision) {
		t.Helper()
		if d.GetDecisionId() == first.GetDecisionId() {
			t.Errorf("%s shares the decision", why)
		}
	}
	other("another environment", l.decide(t, "staging", s, "ALLOWED"))
	// A name that no evidence gives is not vouched for: one decision for all such.
	unnamed := l.decide(t, "dev", subject("app2", "app"), "ALLOWED")
	other("a name that no evidence gives", unnamed)
	if d := l.decide(t, "dev", subject("app3", "app"), "ALLOWED"); d.GetDecisionId() != unnamed.GetDecisionId() || d.GetSubject().GetName() != "app3" {
		t.Error("two names that no evidence gives have a decision each, or the answer is not about what was asked")
	}
	workflow := "octo-org/octo-app/.github/workflows/other.yml@refs/heads/main"
	other("another workflow", l.login(t, oidctest.Claims{"workflow_ref": workflow}).decide(t, "dev", s, "ALLOWED"))
	l.login(t)
	l.stop()
	l = w.start(t).login(t)
	if d := l.decide(t, "dev", s, "ALLOWED"); d.GetDecisionId() != first.GetDecisionId() {
		t.Error("a restart forgot the decision")
	}
	l.digests(t, l.session(t, w.issuer.Mint(w.instance, runClaims(9))), s)
	other("more evidence", l.decide(t, "dev", s, "ALLOWED"))
	w.advance(time.Hour)
	l.login(t)
	other("an expired one", l.decide(t, "dev", s, "ALLOWED"))

	audit := assayv1.NewAuditServiceClient(l.conn)
	stored, err := audit.GetDecision(l.ctx, &assayv1.GetDecisionRequest{DecisionId: first.GetDecisionId()})
	if err != nil || string(stored.GetDecision().GetVerificationSummary()) != string(first.GetVerificationSummary()) {
		t.Errorf("GetDecision: %v", err)
	}
	list, err := audit.ListDecisions(l.ctx, &assayv1.ListDecisionsRequest{Filter: `environment = "dev" AND verification_result = "PASSED"`})
	if err != nil || len(list.GetDecisions()) != 5 {
		t.Errorf("%d decisions are listed for dev (%v); want 5", len(list.GetDecisions()), err)
	}
}

func rand8(t testing.TB) string {
	t.Helper()
	return fmt.Sprint(t.Name(), time.Now().UnixNano())
}

// TestVerifySummary: the summary of a pass stands alone, says what the decision
// says, and cannot be taken for one about another environment.
func TestVerifySummary(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	v := l.verifier(t)
	s := subject("dist/app", "app")
	a := l.upload(t, l.ctx, "dist/app", "app").GetAttestation()
	seen := make(map[string]string)
	for _, environment := range []string{"dev", "staging", "prod"} {
		d := l.decide(t, environment, s, "ALLOWED")
		ev, err := v.VerifyOwn(d.GetVerificationSummary())
		if err != nil || ev.PredicateType() != attest.PredicateVSA || !ev.HasDigest("sha256", s.GetDigest()["sha256"]) {
			t.Fatalf("%s: the summary is no evidence: %v", environment, err)
		}
		sum := summaryOf(t, d)
		if seen[sum.Verifier.ID] = environment; sum.Verifier.ID != w.instance+"/environments/"+environment {
			t.Errorf("%s: verifier %s", environment, sum.Verifier.ID)
		}
		if sum.VerificationResult != "PASSED" || !slices.Equal(sum.VerifiedLevels, []string{"SLSA_BUILD_LEVEL_2"}) || sum.ResourceURI != "dist/app" ||
			sum.Policy.Digest["sha256"] != d.GetPolicyVersion() || !sum.Expires.Equal(d.GetExpireTime().AsTime().Truncate(time.Second)) {
			t.Errorf("%s: summary %+v of decision %v", environment, sum, d)
		}
		if len(sum.InputAttestations) != 1 || sum.InputAttestations[0].Digest["sha256"] != sha256Hex(a.GetBundle()) {
			t.Errorf("%s: input attestations %v", environment, sum.InputAttestations)
		}
	}
	if len(seen) != 3 {
		t.Errorf("three environments share a verifier id: %v", seen)
	}
	// The name that was asked by is not repeated unless an attestation knows it.
	if sum := summaryOf(t, l.decide(t, "prod", subject("registry/evil", "app"), "ALLOWED")); sum.ResourceURI != "sha256:"+s.GetDigest()["sha256"] {
		t.Errorf("the summary vouches for the name %q", sum.ResourceURI)
	}
}

// TestVerifyDenialIsNotLogged: a denial is signed and leaves no log entry, so that
// asking about rubbish fills no log; and it is no evidence of anything.
func TestVerifyDenialIsNotLogged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	v := l.verifier(t)
	before := l.digests(t, l.ctx, subject("a", "a")).GetAttestation().GetLogIndex()
	for i := range 10 {
		d := l.decide(t, "dev", subject("x", fmt.Sprint("nobody attested", i)), "NO_ATTESTATION")
		if _, err := v.VerifyOwn(d.GetVerificationSummary()); refusal.CodeOf(err) != verify.CodeLogEntryMissing {
			t.Errorf("the summary of a denial: %v; want %s", err, verify.CodeLogEntryMissing)
		}
		if sum := summaryOf(t, d); sum.VerificationResult != "FAILED" || !slices.Equal(sum.VerifiedLevels, []string{"FAILED"}) {
			t.Errorf("the summary of a denial says %+v", sum)
		}
	}
	if after := l.digests(t, l.ctx, subject("b", "b")).GetAttestation().GetLogIndex(); after != before+1 {
		t.Errorf("ten denials made %d log entries", after-before-1)
	}
	list, err := assayv1.NewAuditServiceClient(l.conn).ListDecisions(l.ctx, &assayv1.ListDecisionsRequest{Filter: `reason = "NO_ATTESTATION"`})
	if err != nil || len(list.GetDecisions()) != 10 {
		t.Errorf("%d denials are on record (%v); want 10", len(list.GetDecisions()), err)
	}
}
