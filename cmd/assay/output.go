package main

import (
	"encoding/json"
	"strings"

	"github.com/assay-build/assay/client"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// The shapes of --format json. They are an interface: fields are added, never
// renamed or removed. Names are the wire contract's.

type attestOutput struct {
	Attestation attestationJSON `json:"attestation"`
	Repeated    bool            `json:"repeated"`
	BundlePaths []string        `json:"bundle_paths,omitempty"`
	SBOMs       []sbomJSON      `json:"sboms,omitempty"`
}

type attestationsJSON struct {
	Attestations []attestationJSON `json:"attestations"`
	// More is true where --limit left some out.
	More bool `json:"more"`
}

type attestationJSON struct {
	AttestationID  string            `json:"attestation_id"`
	PredicateType  string            `json:"predicate_type"`
	Subjects       []subjectJSON     `json:"subjects"`
	BuilderID      string            `json:"builder_id"`
	BuildType      string            `json:"build_type"`
	InvocationID   string            `json:"invocation_id"`
	SLSABuildLevel int32             `json:"slsa_build_level"`
	Downgrades     []string          `json:"downgrades,omitempty"`
	SourceURI      string            `json:"source_uri"`
	SourceDigest   map[string]string `json:"source_digest,omitempty"`
	CreateTime     string            `json:"create_time"`
	LogIndex       int64             `json:"log_index"`
	Caller         *callerJSON       `json:"caller,omitempty"`
	// Bundle is the Sigstore bundle as an object: write it to a file and any
	// Sigstore verifier takes it.
	Bundle json.RawMessage `json:"bundle,omitempty"`
	// DetachedSignatures are further signatures over the bundle's envelope.
	DetachedSignatures []detachedJSON `json:"detached_signatures,omitempty"`
}

type detachedJSON struct {
	Kind      string `json:"kind"`
	KeyID     string `json:"key_id,omitempty"`
	Signature []byte `json:"signature"`
}

type subjectJSON struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
	Origin string            `json:"origin,omitempty"`
	Size   int64             `json:"size,omitempty"`
}

type whoamiOutput struct {
	Caller     *callerJSON `json:"caller"`
	ExpireTime string      `json:"expire_time"`
}

type verdictJSON struct {
	Allowed     bool           `json:"allowed"`
	Environment string         `json:"environment"`
	Decisions   []decisionJSON `json:"decisions"`
}

type decisionJSON struct {
	DecisionID     string            `json:"decision_id"`
	Subject        subjectJSON       `json:"subject"`
	Allowed        bool              `json:"allowed"`
	Reason         string            `json:"reason"`
	Message        string            `json:"message,omitempty"`
	Rules          []ruleJSON        `json:"rules"`
	Facts          map[string]string `json:"facts,omitempty"`
	AttestationIDs []string          `json:"attestation_ids"`
	PolicyVersion  string            `json:"policy_version"`
	DecideTime     string            `json:"decide_time"`
	ExpireTime     string            `json:"expire_time,omitempty"`
	// VerificationSummary is the SLSA VSA, a Sigstore bundle as an object.
	VerificationSummary json.RawMessage `json:"verification_summary,omitempty"`
	// SummaryMissing says why there is none.
	SummaryMissing string `json:"summary_missing,omitempty"`
}

type ruleJSON struct {
	RuleID    string `json:"rule_id"`
	Effect    string `json:"effect"`
	Satisfied bool   `json:"satisfied"`
	Message   string `json:"message,omitempty"`
	Expected  string `json:"expected,omitempty"`
	Found     string `json:"found,omitempty"`
	Remedy    string `json:"remedy,omitempty"`
	Error     string `json:"error,omitempty"`
}

func attestationOutput(at *assayv1.Attestation) attestationJSON {
	out := attestationJSON{
		AttestationID:  at.GetAttestationId(),
		PredicateType:  at.GetPredicateType(),
		Subjects:       []subjectJSON{},
		BuilderID:      at.GetBuilderId(),
		BuildType:      at.GetBuildType(),
		InvocationID:   at.GetInvocationId(),
		SLSABuildLevel: at.GetSlsaBuildLevel(),
		Downgrades:     at.GetDowngrades(),
		SourceURI:      at.GetSourceUri(),
		SourceDigest:   at.GetSourceDigest(),
		CreateTime:     stamp(at.GetCreateTime()),
		LogIndex:       at.GetLogIndex(),
		Caller:         callerOutput(at.GetCaller()),
		Bundle:         rawJSON(at.GetBundle()),
	}
	for _, s := range at.GetSubjects() {
		out.Subjects = append(out.Subjects, subjectOutput(s))
	}
	for _, d := range at.GetDetachedSignatures() {
		out.DetachedSignatures = append(out.DetachedSignatures, detachedJSON{d.GetKind(), d.GetKeyId(), d.GetSignature()})
	}
	return out
}

func listOutput(rows []*assayv1.Attestation, more bool) attestationsJSON {
	out := attestationsJSON{Attestations: []attestationJSON{}, More: more}
	for _, at := range rows {
		out.Attestations = append(out.Attestations, attestationOutput(at))
	}
	return out
}

func subjectOutput(s *assayv1.Subject) subjectJSON {
	return subjectJSON{
		Name: s.GetName(), Digest: s.GetDigest(), Size: s.GetSize(),
		Origin: enumWord(s.GetOrigin().String(), "DIGEST_ORIGIN_"),
	}
}

func verdictOutput(environment string, v *client.Verdict) verdictJSON {
	out := verdictJSON{Allowed: v.Allowed(), Environment: environment, Decisions: []decisionJSON{}}
	for _, d := range v.Decisions() {
		out.Decisions = append(out.Decisions, decisionOutput(d))
	}
	return out
}

func decisionOutput(d *assayv1.Decision) decisionJSON {
	out := decisionJSON{
		DecisionID:          d.GetDecisionId(),
		Subject:             subjectOutput(d.GetSubject()),
		Allowed:             allowed(d),
		Reason:              d.GetReason(),
		Message:             d.GetMessage(),
		Rules:               []ruleJSON{},
		Facts:               d.GetFacts(),
		AttestationIDs:      append([]string{}, d.GetAttestationIds()...),
		PolicyVersion:       d.GetPolicyVersion(),
		DecideTime:          stamp(d.GetDecideTime()),
		ExpireTime:          stamp(d.GetExpireTime()),
		VerificationSummary: rawJSON(d.GetVerificationSummary()), SummaryMissing: d.GetSummaryMissing(),
	}
	for _, r := range d.GetRules() {
		out.Rules = append(out.Rules, ruleJSON{
			RuleID: r.GetRuleId(), Effect: enumWord(r.GetEffect().String(), "RULE_EFFECT_"), Satisfied: r.GetSatisfied(),
			Message: r.GetMessage(), Expected: r.GetExpected(), Found: r.GetFound(), Remedy: r.GetRemedy(), Error: r.GetError(),
		})
	}
	return out
}

// enumWord makes DIGEST_ORIGIN_HASHED "hashed", and what is unspecified empty.
func enumWord(name, prefix string) string {
	word := strings.TrimPrefix(name, prefix)
	if word == "UNSPECIFIED" {
		return ""
	}
	return strings.ToLower(word)
}

// rawJSON embeds JSON, or leaves it out where it is none.
func rawJSON(data []byte) json.RawMessage {
	if !json.Valid(data) {
		return nil
	}
	return data
}
