package client

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/assay-build/assay/internal/attest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// allowedReason is the reason of every decision that passed.
const allowedReason = "ALLOWED"

// checkAttested refuses an answer to an attest that does not speak about exactly
// the subjects sent.
func checkAttested(result *assayv1.AttestResult, sent []Subject) error {
	statement, err := checkProvenance(result.GetAttestation())
	if err != nil {
		return err
	}
	want := make(map[string]string, len(sent))
	for _, s := range sent {
		want[s.Name] = s.SHA256
	}
	return checkSubjects(statement, want)
}

// checkProvenance refuses what is no consistent attestation of provenance.
func checkProvenance(a *assayv1.Attestation) (*attest.Statement, error) {
	if a == nil {
		return nil, dishonest("the result of the attest holds no attestation")
	}
	statement, err := checkAttestation(a)
	if err != nil {
		return nil, err
	}
	if statement.PredicateType != attest.PredicateSLSAProvenanceV1 {
		return nil, dishonest("the attestation is a %q, not provenance", statement.PredicateType)
	}
	return statement, nil
}

// checkAttestation refuses an attestation whose index says other things than its
// bundle. It does not verify signatures: that needs a trusted root.
func checkAttestation(a *assayv1.Attestation) (*attest.Statement, error) {
	_, statement, err := openAttestation(a)
	return statement, err
}

// openAttestation is checkAttestation for who needs the bundle's parts too.
func openAttestation(a *assayv1.Attestation) (*attest.BundleParts, *attest.Statement, error) {
	parts, err := attest.ParseOwnBundle(a.GetBundle())
	if err != nil {
		return nil, nil, dishonest("the attestation's bundle: %w", err)
	}
	statement, err := parseStatement(parts)
	if err != nil {
		return nil, nil, err
	}
	return parts, statement, checkIndex(a, parts, statement)
}

// checkIndex compares what is listed with what is signed.
func checkIndex(a *assayv1.Attestation, parts *attest.BundleParts, statement *attest.Statement) error {
	id := sha256.Sum256(parts.Envelope.Payload)
	switch {
	case a.GetAttestationId() != hex.EncodeToString(id[:]):
		return dishonest("attestation %q holds the statement of another, %x", a.GetAttestationId(), id)
	case a.GetPredicateType() != statement.PredicateType:
		return dishonest("the attestation is listed as %q and signed as %q", a.GetPredicateType(), statement.PredicateType)
	case !parts.LogEntry.Present():
		return dishonest("the attestation has no entry in the transparency log")
	case parts.LogEntry.LogIndex != a.GetLogIndex():
		return dishonest("the attestation is listed at log index %d and logged at %d", a.GetLogIndex(), parts.LogEntry.LogIndex)
	}
	if err := checkLevel(statement, a.GetSlsaBuildLevel()); err != nil {
		return err
	}
	listed := make(map[string]string, len(a.GetSubjects()))
	for _, s := range a.GetSubjects() {
		listed[s.GetName()] = s.GetDigest()["sha256"]
	}
	return checkSubjects(statement, listed)
}

// checkLevel refuses an index that gives a build a higher level than was signed. A
// lower one may be: the operator can trust a builder less by now.
func checkLevel(statement *attest.Statement, listed int32) error {
	if statement.PredicateType != attest.PredicateSLSAProvenanceV1 {
		return nil
	}
	var predicate struct {
		BuildDefinition struct {
			InternalParameters struct {
				Assay struct {
					Level *int32 `json:"slsaBuildLevel"`
				} `json:"assay"`
			} `json:"internalParameters"`
		} `json:"buildDefinition"`
	}
	if err := json.Unmarshal(statement.Predicate, &predicate); err != nil {
		return dishonest("the provenance: %w", err)
	}
	if signed := predicate.BuildDefinition.InternalParameters.Assay.Level; signed != nil && listed > *signed {
		return dishonest("the attestation is listed at SLSA Build level %d and signed at %d", listed, *signed)
	}
	return nil
}

func parseStatement(parts *attest.BundleParts) (*attest.Statement, error) {
	if parts.Envelope.PayloadType != attest.PayloadTypeInToto {
		return nil, dishonest("the bundle signs a %q, not an in-toto statement", parts.Envelope.PayloadType)
	}
	statement, err := attest.ParseStatement(parts.Envelope.Payload)
	if err != nil {
		return nil, dishonest("the bundle's statement: %w", err)
	}
	return statement, nil
}

// checkSubjects holds a statement to names and SHA-256 digests, in any order.
// Equal counts and unique names on both sides make "each of mine is there" mean
// "the same set".
func checkSubjects(statement *attest.Statement, want map[string]string) error {
	if len(statement.Subjects) != len(want) {
		return dishonest("the statement has %d subjects, want %d", len(statement.Subjects), len(want))
	}
	seen := make(map[string]bool, len(want))
	for _, s := range statement.Subjects {
		digest, ok := want[s.Name]
		if !ok || seen[s.Name] {
			return dishonest("the statement speaks about %q, which was not asked for or comes twice", s.Name)
		}
		seen[s.Name] = true
		if digest == "" || s.Digest["sha256"] != digest {
			return dishonest("the statement gives %q the digest sha256:%s, want sha256:%s", s.Name, s.Digest["sha256"], digest)
		}
	}
	return nil
}

// checkVerdict refuses an answer to Verify that is not exactly one clear,
// consistent decision for each subject, in order.
func checkVerdict(resp *assayv1.VerifyResponse, asked []Subject, environment string) error {
	if len(resp.GetDecisions()) != len(asked) {
		return dishonest("%d decisions about %d subjects", len(resp.GetDecisions()), len(asked))
	}
	all := true
	for i, d := range resp.GetDecisions() {
		passed, err := checkDecision(d, asked[i], environment)
		if err != nil {
			return err
		}
		all = all && passed
	}
	overall, err := passed(resp.GetVerificationResult())
	if err != nil {
		return err
	}
	if overall != all {
		return dishonest("the verdict as a whole is %s, and its decisions say otherwise", resp.GetVerificationResult())
	}
	return nil
}

func checkDecision(d *assayv1.Decision, asked Subject, environment string) (bool, error) {
	digest := d.GetSubject().GetDigest()["sha256"]
	if digest != asked.SHA256 {
		return false, dishonest("a decision about sha256:%s where sha256:%s was asked", digest, asked.SHA256)
	}
	if d.GetEnvironment() != environment {
		return false, dishonest("a decision for environment %q where %q was asked", d.GetEnvironment(), environment)
	}
	pass, err := passed(d.GetVerificationResult())
	if err != nil {
		return false, err
	}
	if pass != (d.GetReason() == allowedReason) {
		return false, dishonest("a decision that is %s for the reason %q", d.GetVerificationResult(), d.GetReason())
	}
	if pass {
		return true, checkPassed(d, digest)
	}
	return false, nil
}

// checkPassed looks for what a decision that passed cannot hold, and for the
// summary that must come with it, unless the server says why it has none.
func checkPassed(d *assayv1.Decision, digest string) error {
	for _, r := range d.GetRules() {
		if r.GetError() != "" || (r.GetEffect() == assayv1.RuleEffect_RULE_EFFECT_FORBID && !r.GetSatisfied()) {
			return dishonest("a decision passed against the rule %q", r.GetRuleId())
		}
	}
	if len(d.GetVerificationSummary()) == 0 && d.GetSummaryMissing() != "" {
		return checkUnsigned(d)
	}
	parts, err := attest.ParseOwnBundle(d.GetVerificationSummary())
	if err != nil {
		return dishonest("the verification summary: %w", err)
	}
	statement, err := parseStatement(parts)
	if err != nil {
		return err
	}
	if statement.PredicateType != attest.PredicateVSA {
		return dishonest("the verification summary is a %q", statement.PredicateType)
	}
	about := false
	for _, s := range statement.Subjects {
		about = about || s.Digest["sha256"] == digest
	}
	// ParseStatement has refused duplicate and case-variant names in the predicate.
	var predicate struct {
		Verifier struct {
			ID string `json:"id"`
		} `json:"verifier"`
		VerificationResult string `json:"verificationResult"`
	}
	if err := json.Unmarshal(statement.Predicate, &predicate); err != nil {
		return dishonest("the verification summary's predicate: %w", err)
	}
	if !about || predicate.VerificationResult != "PASSED" {
		return dishonest("the verification summary does not say that sha256:%s passed", digest)
	}
	// The environment is part of the verifier's id, so that a summary for one
	// environment cannot be kept and shown as one for another.
	if want := "/environments/" + url.PathEscape(d.GetEnvironment()); !strings.HasSuffix(predicate.Verifier.ID, want) {
		return dishonest("the verification summary is by %.200q, not about environment %q", predicate.Verifier.ID, d.GetEnvironment())
	}
	return nil
}

// maxUnsigned is how long a permission may be good that is the server's word alone.
const maxUnsigned = 5 * time.Minute

// checkUnsigned refuses a permission without a summary, unless what signs, dates or
// certifies summaries is what is missing, and it is soon asked for again.
func checkUnsigned(d *assayv1.Decision) error {
	missing := d.GetSummaryMissing()
	away := slices.Contains([]string{"SIGNATURE_MISDATED", "CA_NO_INTERMEDIATE", "CA_MISSING", "DEADLINE_EXCEEDED", "KEY_REF_INVALID"}, missing)
	for _, prefix := range []string{"KMS_", "TSA_", "TIMESTAMP_"} {
		away = away || len(missing) > len(prefix) && strings.HasPrefix(missing, prefix)
	}
	if !away {
		return dishonest("a decision passed without a verification summary, for the reason %.80q, which is none", missing)
	}
	if d.GetDecideTime() == nil || d.GetExpireTime() == nil {
		return dishonest("a decision passed without a verification summary, and does not say for how long")
	}
	if good := d.GetExpireTime().AsTime().Sub(d.GetDecideTime().AsTime()); good <= 0 || good > maxUnsigned {
		return dishonest("a decision passed without a verification summary for %s; the limit is %s", good, maxUnsigned)
	}
	return nil
}

// passed reads a result. Only the two that mean something are answers.
func passed(r assayv1.VerificationResult) (bool, error) {
	switch r {
	case assayv1.VerificationResult_VERIFICATION_RESULT_PASSED:
		return true, nil
	case assayv1.VerificationResult_VERIFICATION_RESULT_FAILED:
		return false, nil
	}
	return false, dishonest("a verification result of %s", r)
}
