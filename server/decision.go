package server

// What a decision looks like to those who read it: on the wire, in the register,
// and signed.

import (
	"slices"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/verify"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// decision is j as it leaves the service.
func (j *judgement) decision(id string, summary []byte, made, expires time.Time) *assayv1.Decision {
	d := &assayv1.Decision{
		DecisionId:          id,
		Subject:             &assayv1.Subject{Name: j.resource.Name, Digest: j.resource.Digest},
		Environment:         j.environment,
		VerificationResult:  assayv1.VerificationResult_VERIFICATION_RESULT_FAILED,
		Reason:              string(j.Code),
		Message:             j.Message,
		Facts:               j.Facts,
		AttestationIds:      j.shown(),
		PolicyVersion:       j.PolicyVersion,
		DecideTime:          timestamppb.New(made),
		VerificationSummary: summary,
		ExpireTime:          timestamppb.New(expires),
	}
	if j.Allowed {
		d.VerificationResult = assayv1.VerificationResult_VERIFICATION_RESULT_PASSED
	}
	for _, r := range j.Rules {
		d.Rules = append(d.Rules, ruleProto(r))
	}
	return d
}

// shown are the ids of the attestations that decided, where the caller may read them.
func (j *judgement) shown() []string {
	if j.hidden {
		return nil
	}
	return append(j.set.idsOf(j.Used), j.usedSBOMs()...)
}

// sbomFacts are what the policy is given of the SBOMs.
func (j *judgement) sbomFacts() []*policy.SBOM {
	var out []*policy.SBOM
	for _, s := range j.sboms {
		out = append(out, s.facts)
	}
	return out
}

// usedSBOMs are the ids of the SBOMs that the rules were asked about.
func (j *judgement) usedSBOMs() []string {
	var out []string
	for _, s := range j.UsedSBOMs {
		out = append(out, s.ID())
	}
	return out
}

// sbomResources are those SBOMs as the access policy sees them.
func (j *judgement) sbomResources() []policy.Resource {
	var out []policy.Resource
	for _, s := range j.sboms {
		if slices.Contains(j.UsedSBOMs, s.facts) {
			out = append(out, s.of)
		}
	}
	return out
}

// summary is a judgement as a SLSA VSA.
func (g *gate) summary(j *judgement, made, expires time.Time) (*attest.Statement, error) {
	resource := j.resource
	if resource.Name == "" {
		resource.Name = "sha256:" + resource.Digest["sha256"]
	}
	in := policy.VSAInput{
		Instance:        g.instance,
		Environment:     j.environment,
		Subject:         resource,
		ResourceURI:     resource.Name,
		PolicyVersion:   j.PolicyVersion,
		Decision:        j.Decision,
		TimeVerified:    made,
		Expires:         expires,
		VerifierVersion: map[string]string{"assay": g.version},
	}
	for i, id := range j.set.ids {
		in.InputAttestations = append(in.InputAttestations, policy.InputAttestation{
			URI: g.instance + "/v1/attestations/" + id, Digest: map[string]string{"sha256": j.set.bundles[i]},
		})
	}
	for _, s := range j.sboms {
		if slices.Contains(j.UsedSBOMs, s.facts) {
			in.InputAttestations = append(in.InputAttestations, policy.InputAttestation{
				URI: g.instance + "/v1/attestations/" + s.facts.ID(), Digest: map[string]string{"sha256": s.sum},
			})
		}
	}
	return policy.VSA(in)
}

// resourceOf is what a decision about s vouches for: the digest that was judged,
// and of the name and the further digests that the caller chose those that the
// evidence which decided gives to that digest.
func resourceOf(used []*verify.Evidence, s attest.Subject) attest.Subject {
	sum := s.Digest["sha256"]
	r := attest.Subject{Digest: map[string]string{"sha256": sum}}
	for _, e := range used {
		st := e.Statement()
		for i := range st.Subjects {
			sub := &st.Subjects[i]
			if sub.Digest["sha256"] != sum {
				continue
			}
			if sub.Name == s.Name {
				r.Name = s.Name
			}
			for alg, value := range s.Digest {
				if sub.Digest[alg] == value {
					r.Digest[alg] = value
				}
			}
		}
	}
	return r
}

func ruleProto(r policy.RuleResult) *assayv1.RuleResult {
	out := &assayv1.RuleResult{
		RuleId: r.ID, Satisfied: r.Satisfied, Message: r.Message, Expected: r.Expected,
		Found: r.Found, Remedy: r.Remedy, Error: r.Error, Effect: assayv1.RuleEffect_RULE_EFFECT_PERMIT,
	}
	if r.Effect == policy.Forbid {
		out.Effect = assayv1.RuleEffect_RULE_EFFECT_FORBID
	}
	return out
}

// signatureFacts say what signatures there are beside the bundle. Few have any, and who
// has them wants to see that they were looked at.
func signatureFacts() []string {
	return []string{"provenance.coSignatures", "signer.profile", "signer.profileVersion", "signer.revoked"}
}

// withoutFacts leaves the facts out of a permission, but for those of signatures: they
// are a third of the answer's cost, and a deploy that may go on does not read them.
// GetDecision has them.
func withoutFacts(d *assayv1.Decision) *assayv1.Decision {
	if d.GetVerificationResult() != assayv1.VerificationResult_VERIFICATION_RESULT_PASSED {
		return d
	}
	var kept map[string]string
	for _, name := range signatureFacts() {
		if v, ok := d.Facts[name]; ok {
			if kept == nil {
				kept = make(map[string]string)
			}
			kept[name] = v
		}
	}
	d.Facts = kept
	return d
}

// withCaller copies the shared decision's fields, not what they point to, and
// says who asked this time.
func withCaller(d *assayv1.Decision, caller *assayv1.Caller) *assayv1.Decision {
	return &assayv1.Decision{
		DecisionId: d.DecisionId, Subject: d.Subject, Environment: d.Environment,
		VerificationResult: d.VerificationResult, Reason: d.Reason, Message: d.Message,
		Rules: d.Rules, Facts: d.Facts, AttestationIds: d.AttestationIds, PolicyVersion: d.PolicyVersion,
		DecideTime: d.DecideTime, VerificationSummary: d.VerificationSummary, ExpireTime: d.ExpireTime, SummaryMissing: d.SummaryMissing,
		Caller: caller,
	}
}

func resultName(allowed bool) string {
	if allowed {
		return "PASSED"
	}
	return "FAILED"
}
