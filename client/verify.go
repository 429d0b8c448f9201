package client

import (
	"context"
	"slices"

	"github.com/assay-build/assay/internal/attest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// maxVerifySubjects is how many subjects one Verify RPC takes.
const maxVerifySubjects = 100

// Verdict is what the server decided. The zero value is a denial.
type Verdict struct {
	allowed   bool
	decisions []*assayv1.Decision
}

// Allowed reports whether every subject asked about may be deployed.
func (v *Verdict) Allowed() bool { return v != nil && v.allowed && len(v.decisions) > 0 }

// Decisions holds one decision for each subject, in the order asked.
func (v *Verdict) Decisions() []*assayv1.Decision { return v.decisions }

// Verify asks whether the caller may deploy subjects to an environment. A denial
// is a Verdict; an error means that nothing was decided. More than 100 subjects
// are asked about in several calls, and then all of them must be allowed.
func (c *Client) Verify(ctx context.Context, subjects []Subject, environment string) (*Verdict, error) {
	if err := checkQuestion(subjects, environment); err != nil {
		return nil, err
	}
	ctx, cancel := withDeadline(ctx, unaryTimeout)
	defer cancel()
	verdict := &Verdict{allowed: true}
	for asked := range slices.Chunk(subjects, maxVerifySubjects) {
		resp, err := c.verifyOnce(ctx, asked, environment)
		if err != nil {
			return nil, err
		}
		if resp.GetVerificationResult() != assayv1.VerificationResult_VERIFICATION_RESULT_PASSED {
			verdict.allowed = false
		}
		verdict.decisions = append(verdict.decisions, resp.GetDecisions()...)
	}
	return verdict, nil
}

func (c *Client) verifyOnce(ctx context.Context, asked []Subject, environment string) (*assayv1.VerifyResponse, error) {
	wire, err := wireSubjects(asked)
	if err != nil {
		return nil, err
	}
	var resp *assayv1.VerifyResponse
	err = c.authenticated(ctx, unaryTimeout, func(ctx context.Context) (err error) {
		resp, err = c.verification.Verify(ctx, &assayv1.VerifyRequest{Subjects: wire, Environment: environment})
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := checkVerdict(resp, asked, environment); err != nil {
		return nil, err
	}
	return resp, nil
}

func checkQuestion(subjects []Subject, environment string) error {
	if len(subjects) == 0 {
		return badInput(CodeSubjectsInvalid, "nothing to verify")
	}
	if len(subjects) > MaxSubjects {
		return badInput(CodeSubjectsInvalid, "%d subjects; at most %d are verified at once", len(subjects), MaxSubjects)
	}
	if environment == "" {
		return badInput(CodeSubjectsInvalid, "no environment given")
	}
	for _, s := range subjects {
		// A name is optional here: the digest is what is asked about.
		if s.Name == "" {
			continue
		}
		if err := attest.CheckSubjectName(s.Name); err != nil {
			return badInput(CodeSubjectInvalid, "%w", err)
		}
	}
	return nil
}
