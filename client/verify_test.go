package client

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/assay-build/assay/client/clienttest"
	"github.com/assay-build/assay/internal/attest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

const (
	resultPassed = assayv1.VerificationResult_VERIFICATION_RESULT_PASSED
	resultFailed = assayv1.VerificationResult_VERIFICATION_RESULT_FAILED
)

func TestVerify(t *testing.T) {
	s := clienttest.New(t)
	s.OnVerify = func(_ context.Context, req *assayv1.VerifyRequest) (*assayv1.VerifyResponse, error) {
		resp := clienttest.Allow(req)
		for i, subject := range req.GetSubjects() {
			if subject.GetName() == "bad" {
				resp.Decisions[i] = clienttest.Failed(subject, req.GetEnvironment())
				resp.VerificationResult = resultFailed
			}
		}
		return resp, nil
	}
	c, _ := dial(t, s)
	for _, tt := range []struct {
		names   []string
		allowed bool
	}{
		{[]string{"a"}, true},
		{[]string{""}, true},
		{[]string{"a", "b"}, true},
		{[]string{"bad"}, false},
		{[]string{"a", "bad", "b"}, false},
		{[]string{"a", "a"}, true},
	} {
		var subjects []Subject
		for _, name := range tt.names {
			subjects = append(subjects, Subject{name, digestOf(name)})
		}
		v, err := c.Verify(t.Context(), subjects, "prod")
		if err != nil || v.Allowed() != tt.allowed || len(v.Decisions()) != len(subjects) {
			t.Errorf("%q: %+v, %v; want allowed %t", tt.names, v, err, tt.allowed)
		}
	}
}

// TestVerifyMany: what takes several calls is allowed only if all of them say so.
func TestVerifyMany(t *testing.T) {
	s := clienttest.New(t)
	calls, denied := 0, 0
	s.OnVerify = func(_ context.Context, req *assayv1.VerifyRequest) (*assayv1.VerifyResponse, error) {
		calls++
		resp := clienttest.Allow(req)
		if calls == denied {
			last := len(req.GetSubjects()) - 1
			resp.Decisions[last] = clienttest.Failed(req.GetSubjects()[last], req.GetEnvironment())
			resp.VerificationResult = resultFailed
		}
		return resp, nil
	}
	c, _ := dial(t, s)
	subjects := make([]Subject, 250)
	for i := range subjects {
		subjects[i] = Subject{"", digestOf(strings.Repeat("x", i))}
	}
	for _, denied = range []int{0, 1, 2, 3} {
		calls = 0
		v, err := c.Verify(t.Context(), subjects, "prod")
		if err != nil || calls != 3 || len(v.Decisions()) != 250 || v.Allowed() != (denied == 0) {
			t.Errorf("denied in call %d: %d calls, %v", denied, calls, err)
		}
	}
}

// TestVerifyDishonest: whatever is not one clear and consistent decision for
// each subject is an error, and never a permission.
func TestVerifyDishonest(t *testing.T) {
	asked := []Subject{{"a", digestOf("A")}, {"b", digestOf("B")}}
	wire := func(name, content string) *assayv1.Subject {
		return &assayv1.Subject{Name: name, Digest: map[string]string{"sha256": digestOf(content)}}
	}
	vsa := func(predicateType, predicate string, logged bool, s *assayv1.Subject) []byte {
		b, _ := clienttest.Bundle(predicateType, predicate, logged, s)
		return b
	}
	first := func(edit func(*assayv1.Decision)) func(*assayv1.VerifyResponse) {
		return func(r *assayv1.VerifyResponse) { edit(r.Decisions[0]) }
	}
	tests := []struct {
		name string
		edit func(*assayv1.VerifyResponse)
		text string
	}{
		{"nothing at all", func(r *assayv1.VerifyResponse) { r.Reset() }, "0 decisions"},
		{"passed, no decisions", func(r *assayv1.VerifyResponse) { r.Decisions = nil }, "0 decisions"},
		{"one too few", func(r *assayv1.VerifyResponse) { r.Decisions = r.Decisions[:1] }, "1 decisions"},
		{"one too many", func(r *assayv1.VerifyResponse) { r.Decisions = append(r.Decisions, r.Decisions[0]) }, "3 decisions"},
		{"nil decision", func(r *assayv1.VerifyResponse) { r.Decisions[1] = &assayv1.Decision{} }, "a decision about"},
		{"unspecified as a whole", func(r *assayv1.VerifyResponse) { r.VerificationResult = 0 }, "UNSPECIFIED"},
		{"unknown as a whole", func(r *assayv1.VerifyResponse) { r.VerificationResult = 7 }, "7"},
		{"unspecified decision", first(func(d *assayv1.Decision) { d.VerificationResult = 0 }), "UNSPECIFIED"},
		{"unknown decision", first(func(d *assayv1.Decision) { d.VerificationResult = 3 }), "result of 3"},
		{"failed one, passed whole", func(r *assayv1.VerifyResponse) {
			r.Decisions[1] = clienttest.Failed(wire("b", "B"), "prod")
		}, "as a whole"},
		{"passed ones, failed whole", func(r *assayv1.VerifyResponse) { r.VerificationResult = resultFailed }, "as a whole"},
		{"another digest", first(func(d *assayv1.Decision) { d.Subject = wire("a", "evil") }), "was asked"},
		{"no digest", first(func(d *assayv1.Decision) { d.Subject = &assayv1.Subject{Name: "a"} }), "was asked"},
		{"no subject", first(func(d *assayv1.Decision) { d.Subject = nil }), "was asked"},
		{"swapped", func(r *assayv1.VerifyResponse) {
			r.Decisions[0], r.Decisions[1] = r.Decisions[1], r.Decisions[0]
		}, "was asked"},
		{"the same one twice", func(r *assayv1.VerifyResponse) { r.Decisions[1] = r.Decisions[0] }, "was asked"},
		{"another environment", first(func(d *assayv1.Decision) { d.Environment = "dev" }), "environment"},
		{"no environment", first(func(d *assayv1.Decision) { d.Environment = "" }), "environment"},
		{"passed for no reason", first(func(d *assayv1.Decision) { d.Reason = "" }), "reason"},
		{"passed for a denial", first(func(d *assayv1.Decision) { d.Reason = "NO_ATTESTATION" }), "reason"},
		{"passed against a forbid", first(func(d *assayv1.Decision) {
			d.Rules = append(d.Rules, &assayv1.RuleResult{RuleId: "r", Effect: assayv1.RuleEffect_RULE_EFFECT_FORBID})
		}), "against the rule"},
		{"passed with a rule in error", first(func(d *assayv1.Decision) {
			d.Rules = append(d.Rules, &assayv1.RuleResult{RuleId: "r", Satisfied: true, Error: "no attribute"})
		}), "against the rule"},
		{"no summary", first(func(d *assayv1.Decision) { d.VerificationSummary = nil }), "summary"},
		{"summary of nonsense", first(func(d *assayv1.Decision) { d.VerificationSummary = []byte("{}") }), "summary"},
		{"summary of provenance", first(func(d *assayv1.Decision) {
			d.VerificationSummary = vsa(attest.PredicateSLSAProvenanceV1, `{"verificationResult":"PASSED"}`, true, wire("a", "A"))
		}), "summary is a"},
		{"summary about another", first(func(d *assayv1.Decision) {
			d.VerificationSummary = vsa(attest.PredicateVSA, `{"verificationResult":"PASSED"}`, true, wire("a", "evil"))
		}), "does not say"},
		{"summary that failed", first(func(d *assayv1.Decision) {
			d.VerificationSummary = vsa(attest.PredicateVSA, `{"verificationResult":"FAILED"}`, true, wire("a", "A"))
		}), "does not say"},
		{"summary of another environment", first(func(d *assayv1.Decision) {
			d.VerificationSummary = vsa(attest.PredicateVSA, clienttest.Summary("PASSED", "dev"), true, wire("a", "A"))
		}), "not about environment"},
		{"summary without result", first(func(d *assayv1.Decision) {
			d.VerificationSummary = vsa(attest.PredicateVSA, `{}`, true, wire("a", "A"))
		}), "does not say"},
		{"summary of another type", first(func(d *assayv1.Decision) {
			d.VerificationSummary = vsa(attest.PredicateVSA, `{"verificationResult":true}`, true, wire("a", "A"))
		}), "predicate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := clienttest.New(t)
			s.OnVerify = func(_ context.Context, req *assayv1.VerifyRequest) (*assayv1.VerifyResponse, error) {
				resp := clienttest.Allow(req)
				tt.edit(resp)
				return resp, nil
			}
			c, _ := dial(t, s)
			v, err := c.Verify(t.Context(), asked, "prod")
			wantDishonest(t, err, tt.text)
			if v.Allowed() {
				t.Error("the verdict allows")
			}
		})
	}
}

func TestVerdictZero(t *testing.T) {
	var none *Verdict
	if none.Allowed() || new(Verdict).Allowed() || (&Verdict{allowed: true}).Allowed() {
		t.Error("a verdict without decisions allows")
	}
}

func TestVerifyLocalErrors(t *testing.T) {
	s := clienttest.New(t)
	c, _ := dial(t, s)
	ok := Subject{"a", digestOf("A")}
	for _, tt := range []struct {
		name     string
		subjects []Subject
		env      string
		code     string
	}{
		{"none", nil, "prod", CodeSubjectsInvalid},
		{"too many", make([]Subject, MaxSubjects+1), "prod", CodeSubjectsInvalid},
		{"no environment", []Subject{ok}, "", CodeSubjectsInvalid},
		{"no digest", []Subject{ok, {"b", ""}}, "prod", CodeSubjectInvalid},
		{"upper case", []Subject{{"a", strings.ToUpper(ok.SHA256)}}, "prod", CodeSubjectInvalid},
		{"bad name", []Subject{{"../a", ok.SHA256}}, "prod", CodeSubjectInvalid},
	} {
		v, err := c.Verify(t.Context(), tt.subjects, tt.env)
		wantCode(t, err, tt.code)
		if !errors.Is(err, ErrInvalid) || v.Allowed() {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if s.Exchanges.Load() != 0 {
		t.Error("bad input reached the server")
	}
}
