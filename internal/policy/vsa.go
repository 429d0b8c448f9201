package policy

import (
	"fmt"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

// CodeVSAInvalid refuses a summary that would say less than a reader takes from
// it: passed on no evidence, at no time, of no policy.
const CodeVSAInvalid refusal.Code = "VSA_INVALID"

// vsaVersion is the version of the SLSA specification the summary follows.
const vsaVersion = "1.1"

// VSAInput is what a verification summary says.
type VSAInput struct {
	// Instance is the public URL of this deployment, without a slash at the end.
	Instance    string
	Environment string
	Subject     attest.Subject
	// ResourceURI names the artifact as it was asked for; the subject's name if empty.
	ResourceURI string
	// PolicyVersion is Set.Version of the policy that decided.
	PolicyVersion string
	// InputAttestations are all the attestations that were looked at.
	InputAttestations []InputAttestation
	Decision          Decision
	TimeVerified      time.Time
	// Expires is when the summary stops being good.
	Expires time.Time
	// VerifierVersion maps components of the service to their versions; may be empty.
	VerifierVersion map[string]string
}

// InputAttestation names one attestation: where it can be fetched, and digests
// of its bytes.
type InputAttestation struct {
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest"`
}

// summary is the predicate https://slsa.dev/verification_summary/v1, in the
// order of the specification. Field names with an underscore are extensions, as
// SLSA's parsing rules have it; a reader who does not know them ignores them.
type summary struct {
	Verifier struct {
		ID      string            `json:"id"`
		Version map[string]string `json:"version,omitempty"`
	} `json:"verifier"`
	TimeVerified string `json:"timeVerified"`
	ResourceURI  string `json:"resourceUri"`
	Policy       struct {
		URI    string            `json:"uri"`
		Digest map[string]string `json:"digest"`
	} `json:"policy"`
	InputAttestations  []InputAttestation `json:"inputAttestations,omitempty"`
	VerificationResult string             `json:"verificationResult"`
	VerifiedLevels     []string           `json:"verifiedLevels"`
	SLSAVersion        string             `json:"slsaVersion"`
	Environment        string             `json:"assay_environment"`
	Expires            string             `json:"assay_expires"`
	Reason             string             `json:"assay_reason"`
}

// VerifierID is the verifier.id of summaries about one environment. A reader of
// a summary must compare verifier.id with what it expects, and must ignore fields
// it does not know; so the environment is part of the id, and a summary for dev
// cannot pass for one for prod in any program that follows SLSA.
func VerifierID(instance, environment string) string {
	return instance + "/environments/" + url.PathEscape(environment)
}

// VSA makes the statement of a verification summary. Its bytes depend on nothing
// but the input.
func VSA(in VSAInput) (*attest.Statement, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	var s summary
	s.Verifier.ID = VerifierID(in.Instance, in.Environment)
	s.Verifier.Version = in.VerifierVersion
	s.TimeVerified = in.TimeVerified.UTC().Truncate(time.Second).Format(time.RFC3339)
	s.Expires = in.Expires.UTC().Truncate(time.Second).Format(time.RFC3339)
	if s.ResourceURI = in.ResourceURI; s.ResourceURI == "" {
		s.ResourceURI = in.Subject.Name
	}
	s.Policy.URI = in.Instance + "/v1/policies/" + in.PolicyVersion
	s.Policy.Digest = map[string]string{"sha256": in.PolicyVersion}
	s.InputAttestations = in.InputAttestations
	s.Environment, s.Reason, s.SLSAVersion = in.Environment, string(in.Decision.Code), vsaVersion
	// verifiedLevels is required: one level of the build track, or FAILED.
	if in.Decision.Allowed {
		s.VerificationResult = "PASSED"
		s.VerifiedLevels = []string{fmt.Sprintf("SLSA_BUILD_LEVEL_%d", in.Decision.SLSABuildLevel)}
	} else {
		s.VerificationResult = "FAILED"
		s.VerifiedLevels = []string{"FAILED"}
	}
	predicate, err := json.Marshal(&s, json.Deterministic(true))
	if err != nil {
		return nil, refusal.New(CodeVSAInvalid, "the summary cannot be written: %w", err)
	}
	return &attest.Statement{
		Type:          attest.StatementTypeV1,
		Subjects:      []attest.Subject{in.Subject},
		PredicateType: attest.PredicateVSA,
		Predicate:     []byte(predicate),
	}, nil
}

func (in *VSAInput) check() error {
	instance, err := url.Parse(in.Instance)
	switch {
	case err != nil || instance.Scheme == "" || instance.Host == "":
		return refusal.New(CodeVSAInvalid, "the instance %.200q is not a URL", in.Instance)
	case in.Environment == "":
		return refusal.New(CodeVSAInvalid, "the summary is about no environment")
	case in.Subject.Digest["sha256"] == "":
		return refusal.New(CodeVSAInvalid, "the summary is about no sha256 digest")
	case in.ResourceURI == "" && in.Subject.Name == "":
		return refusal.New(CodeVSAInvalid, "the summary names no resource")
	case attest.CheckDigest("sha256", in.PolicyVersion) != nil:
		return refusal.New(CodeVSAInvalid, "policy version %.80q is not a sha256", in.PolicyVersion)
	case in.Decision.Code == "":
		return refusal.New(CodeVSAInvalid, "nothing was decided")
	case in.Decision.Allowed != (in.Decision.Code == CodeAllowed):
		return refusal.New(CodeVSAInvalid, "code %s on a decision that says allowed = %t", in.Decision.Code, in.Decision.Allowed)
	case in.Decision.Allowed && len(in.InputAttestations) == 0:
		return refusal.New(CodeVSAInvalid, "passed without an attestation")
	case in.Decision.SLSABuildLevel < 0 || in.Decision.SLSABuildLevel > 3:
		return refusal.New(CodeVSAInvalid, "SLSA Build level %d; want 0 to 3", in.Decision.SLSABuildLevel)
	case in.TimeVerified.IsZero() || !in.Expires.After(in.TimeVerified):
		return refusal.New(CodeVSAInvalid, "the summary was made at %s and expires at %s", in.TimeVerified, in.Expires)
	}
	for i, a := range in.InputAttestations {
		if len(a.Digest) == 0 {
			return refusal.New(CodeVSAInvalid, "input attestation %d has no digest", i)
		}
		for alg, value := range a.Digest {
			if err := attest.CheckDigest(alg, value); err != nil {
				return refusal.New(CodeVSAInvalid, "input attestation %d: %w", i, err)
			}
		}
	}
	return nil
}
