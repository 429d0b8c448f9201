package policy

import (
	"errors"
	"fmt"
	"slices"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/verify"
)

// Codes of a decision.
const (
	// CodeAllowed is the one code of an answer that lets something pass.
	CodeAllowed refusal.Code = "ALLOWED"
	// CodeNoAttestation: there is no evidence about the artifact at all.
	CodeNoAttestation refusal.Code = "NO_ATTESTATION"
	// CodeNoMatchingAttestation: there is evidence, and none of it is provenance.
	CodeNoMatchingAttestation refusal.Code = "NO_MATCHING_ATTESTATION"
	// CodeDeniedByRule: a forbid applies.
	CodeDeniedByRule refusal.Code = "DENIED_BY_RULE"
	// CodeRequirementUnmet: no permit applies.
	CodeRequirementUnmet refusal.Code = "REQUIREMENT_UNMET"
	// CodePolicyError: evaluating a rule ended in an error. Cedar would skip the
	// rule; a forbid would silently not fire.
	CodePolicyError refusal.Code = "POLICY_ERROR"
)

// Decision is the answer to a Question. The zero Decision denies.
type Decision struct {
	Allowed bool
	Code    refusal.Code
	Message string
	// Rules holds each rule that can fire in the environment, in the order of the text.
	Rules []RuleResult
	// Facts is what the evidence in Used says, for people: "provenance.builderId"
	// and so on.
	Facts map[string]string
	// Used is the evidence that the answer rests on, one piece where provenance
	// decided. Where the answer is a denial it is the piece that came closest.
	Used []*verify.Evidence
	// UsedSBOMs are the SBOMs whose facts the rules were asked about.
	UsedSBOMs []*SBOM
	// SLSABuildLevel is that of the provenance in Used; 0 where there is none.
	SLSABuildLevel int
	PolicyVersion  string
}

// RuleResult is what became of one rule.
type RuleResult struct {
	ID     string
	Effect Effect
	// Satisfied means that the rule is no obstacle: a permit that applies, a
	// forbid that does not.
	Satisfied bool
	Message   string
	// Expected is what the rule asks for and did not find, in Cedar; Found the
	// values it found instead. Both are empty for a rule that is satisfied, and where
	// the answer is to allow: of two permits one is enough.
	Expected, Found string
	Remedy          string
	// Error is set where evaluation failed. The answer is then a denial.
	Error string
}

// Decide answers a question. It looks at one provenance attestation at a time:
// the artifact is allowed if there is one under which every rule agrees. Facts of
// two attestations are never mixed, so nobody can borrow the level of one build
// for the repository of another.
func (s *Set) Decide(q Question) Decision {
	items, err := q.items()
	if err != nil {
		return s.deny(refusal.CodeOf(err), detail(err))
	}
	return s.decide(&q, items)
}

func (s *Set) decide(q *Question, items []item) Decision {
	if s == nil || len(s.rules) == 0 {
		return s.deny(CodeEmptyPolicy, "there is no policy, so nothing is allowed")
	}
	in, err := s.memory.gather(q, items, s.named)
	if err != nil {
		return s.deny(refusal.CodeOf(err), detail(err))
	}
	if !s.knows(q.Environment) {
		return s.deny(CodeEnvironmentUnknown, fmt.Sprintf("no rule speaks about environment %.80q; the policy knows %q", q.Environment, s.names))
	}
	sha256 := q.Subject.Digest["sha256"]
	if len(in.alternatives) == 0 {
		// The vacuity check has shown that the rules deny this; that is not relied upon.
		code := CodeNoAttestation
		if len(items) > 0 {
			code = CodeNoMatchingAttestation
		}
		r := in.request(sha256, nil, s.wanted)
		_, why := cedar.Authorize(s.rules, r, r.cedar())
		return s.conclude(q, r, why, code)
	}
	slices.SortFunc(in.alternatives, better)
	// Every alternative is evaluated even after one is allowed: an error anywhere
	// denies, and must not depend on which came first.
	var best *request
	var outcome cedar.Diagnostic
	decision := types.Deny
	for _, p := range in.alternatives {
		r := in.request(sha256, p, s.wanted)
		d, diagnostic := cedar.Authorize(s.rules, r, r.cedar())
		if len(diagnostic.Errors) > 0 {
			return s.conclude(q, r, diagnostic, CodePolicyError)
		}
		if best == nil || closer(d, diagnostic, decision, outcome) {
			best, decision, outcome = r, d, diagnostic
		}
	}
	switch {
	case decision == types.Allow:
		return s.allow(q, best, outcome)
	case len(outcome.Reasons) > 0:
		return s.conclude(q, best, outcome, CodeDeniedByRule)
	}
	return s.conclude(q, best, outcome, CodeRequirementUnmet)
}

// closer reports whether one outcome comes closer to being allowed than another.
// Alternatives come best first, so a tie goes to the better one.
func closer(a types.Decision, aWhy cedar.Diagnostic, b types.Decision, bWhy cedar.Diagnostic) bool {
	if a != b {
		return a == types.Allow
	}
	return a == types.Deny && len(aWhy.Reasons) < len(bWhy.Reasons)
}

func (r *request) cedar() types.Request {
	return types.Request{
		Principal: r.principal.UID,
		Action:    deploy(),
		Resource:  r.artifact.UID,
		Context:   r.context,
	}
}

// allow is the only place that sets Allowed.
func (s *Set) allow(q *Question, r *request, why cedar.Diagnostic) Decision {
	d := Decision{
		Allowed:       true,
		Code:          CodeAllowed,
		Message:       "every rule for " + q.Environment + " agrees",
		PolicyVersion: s.version,
	}
	d.use(q, r)
	speaking := s.rulesFor(q.Environment)
	d.Rules = make([]RuleResult, 0, len(speaking))
	for _, i := range speaking {
		// No forbid applied, and Cedar lists the permits that did.
		satisfied := s.rules[i].effect == Forbid || slices.ContainsFunc(why.Reasons, func(reason types.DiagnosticReason) bool {
			return s.byID[reason.PolicyID] == i
		})
		d.Rules = append(d.Rules, s.rules[i].result(satisfied))
	}
	return d
}

func (s *Set) rulesFor(environment string) []int {
	if speaking, named := s.speaking[environment]; named {
		return speaking
	}
	return s.rulesIn(environment)
}

func (r *rule) result(satisfied bool) RuleResult {
	return RuleResult{ID: r.id, Effect: r.effect, Satisfied: satisfied, Message: r.message, Remedy: r.remedy}
}

// use records what a decision rests on.
func (d *Decision) use(q *Question, r *request) {
	d.UsedSBOMs = r.sboms.used()
	if r.provenance == nil {
		return
	}
	d.Facts = r.provenance.facts()
	r.sboms.describe(d.Facts)
	d.SLSABuildLevel = r.provenance.level
	if i := r.provenance.item.index; i < len(q.Evidence) {
		d.Used = []*verify.Evidence{q.Evidence[i]}
	}
}

func (s *Set) deny(code refusal.Code, message string) Decision {
	d := Decision{Code: code, Message: message}
	if s != nil {
		d.PolicyVersion = s.version
	}
	return d
}

func detail(err error) string {
	var r *refusal.Error
	if errors.As(err, &r) {
		return r.Detail
	}
	return err.Error()
}
