package client

import (
	"context"
	"strings"
	"testing"

	"github.com/assay-build/assay/client/clienttest"
	"github.com/assay-build/assay/internal/attest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc/codes"
)

const (
	someBuild  = "arn:aws:codebuild:eu-west-1:111122223333:build/app:0d5c3c5e-1c1f-4f0e-9c52-3f1c63c1a6f5"
	otherBuild = "arn:aws:codebuild:eu-west-1:111122223333:build/app:ffffffff-1c1f-4f0e-9c52-3f1c63c1a6f5"
)

func hashed(name, content string) *assayv1.Subject {
	return &assayv1.Subject{
		Name: name, Digest: map[string]string{"sha256": digestOf(content)}, Origin: assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED,
	}
}

func TestAttestBuild(t *testing.T) {
	s := clienttest.New(t)
	var asked string
	s.OnAttestBuild = func(_ context.Context, req *assayv1.AttestBuildRequest) (*assayv1.AttestBuildResponse, error) {
		asked = req.GetBuildArn()
		at := clienttest.BuildAttestation(req.GetBuildArn(), hashed("artifacts/app.zip", "app"), hashed("artifacts/lib.zip", "lib"))
		return &assayv1.AttestBuildResponse{Result: &assayv1.AttestResult{Attestation: at, Repeated: true}}, nil
	}
	c, _ := dial(t, s)
	got, err := c.AttestBuild(t.Context(), someBuild)
	if err != nil {
		t.Fatal(err)
	}
	if asked != someBuild || !got.Repeated || len(got.Attestation.GetSubjects()) != 2 || got.Attestation.GetDowngrades()[0] != "debug-session" {
		t.Errorf("asked for %q, got %v", asked, got.Attestation)
	}
}

// TestAttestBuildARN: what is not one build is refused before anybody is asked.
func TestAttestBuildARN(t *testing.T) {
	s := clienttest.New(t)
	c, _ := dial(t, s)
	const id = "0d5c3c5e-1c1f-4f0e-9c52-3f1c63c1a6f5"
	for _, tt := range []struct {
		arn string
		ok  bool
	}{
		{someBuild, true},
		{"arn:aws-cn:codebuild:cn-north-1:111122223333:build/my_App-2:" + id, true},
		{"arn:aws-us-gov:codebuild:us-gov-west-1:111122223333:build/app:" + id, true},
		{"arn:aws-iso-b:codebuild:us-isob-east-1:111122223333:build/app:" + id, true},
		{"arn:aws-eusc:codebuild:eusc-de-east-1:111122223333:build/app:" + id, true},
		{"", false},
		{"app:" + id, false},
		{"arn:aws:codebuild:eu-west-1:111122223333:project/app", false},
		{"arn:aws:codebuild:eu-west-1:111122223333:build-batch/app:" + id, false},
		{"arn:aws:codebuild:eu-west-1:11112222333:build/app:" + id, false},
		{"arn:aws:codebuild:eu-west-1:111122223333:build/app", false},
		{"arn:aws:codebuild:eu-west-1:111122223333:build/a/../b:" + id, false},
		{"arn:aws:codebuild:*:111122223333:build/app:" + id, false},
		{"arn:aws:codebuild:eu-west-1:111122223333:build/app:" + strings.ToUpper(id), false},
		{"arn:aws:s3:eu-west-1:111122223333:build/app:" + id, false},
		{someBuild + "\n", false},
		{" " + someBuild, false},
		{someBuild + ":" + id, false},
	} {
		_, err := c.AttestBuild(t.Context(), tt.arn)
		if want := map[bool]string{true: "", false: CodeBuildARNInvalid}[tt.ok]; want == "" {
			wantCode(t, err, "")
		} else {
			wantCode(t, err, want)
		}
	}
}

// TestAttestBuildDishonest: the answer is held to the one thing that was said.
func TestAttestBuildDishonest(t *testing.T) {
	claimed := hashed("artifacts/app.zip", "app")
	claimed.Origin = assayv1.DigestOrigin_DIGEST_ORIGIN_CLAIMED
	tests := []struct {
		name, text string
		answer     func() *assayv1.AttestResult
	}{
		{"nothing", "no attestation", func() *assayv1.AttestResult { return nil }},
		{"another build", "the provenance is of", func() *assayv1.AttestResult {
			return result(clienttest.BuildAttestation(otherBuild, hashed("a", "a")))
		}},
		{"another build, listed as this one", "the provenance is of", func() *assayv1.AttestResult {
			at := clienttest.BuildAttestation(otherBuild, hashed("a", "a"))
			at.InvocationId = someBuild
			return result(at)
		}},
		{"this build, listed as another", "the provenance is of", func() *assayv1.AttestResult {
			at := clienttest.BuildAttestation(someBuild, hashed("a", "a"))
			at.InvocationId = otherBuild
			return result(at)
		}},
		{"other provenance", "the provenance is of", func() *assayv1.AttestResult { return result(clienttest.Attestation(hashed("a", "a"))) }},
		{"a digest that nobody hashed", "did not hash", func() *assayv1.AttestResult { return result(clienttest.BuildAttestation(someBuild, claimed)) }},
		{"other subjects listed", "which was not asked for", func() *assayv1.AttestResult {
			at := clienttest.BuildAttestation(someBuild, hashed("a", "a"))
			at.Subjects = []*assayv1.Subject{hashed("b", "a")}
			return result(at)
		}},
		{"no subject listed", "has 1 subjects, want 0", func() *assayv1.AttestResult {
			at := clienttest.BuildAttestation(someBuild, hashed("a", "a"))
			at.Subjects = nil
			return result(at)
		}},
		{"a higher level than was signed", "at SLSA Build level 3 and signed at 1", func() *assayv1.AttestResult {
			at := clienttest.BuildAttestation(someBuild, hashed("a", "a"))
			at.SlsaBuildLevel = 3
			return result(at)
		}},
		{"the statement of another", "holds the statement of another", func() *assayv1.AttestResult {
			at := clienttest.BuildAttestation(someBuild, hashed("a", "a"))
			at.AttestationId = digestOf("another")
			return result(at)
		}},
		{"no provenance", "not provenance", func() *assayv1.AttestResult {
			at := clienttest.BuildAttestation(someBuild, hashed("a", "a"))
			at.Bundle, at.AttestationId = clienttest.Bundle(attest.PredicateVSA, clienttest.BuildPredicate(someBuild), true, hashed("a", "a"))
			at.PredicateType = attest.PredicateVSA
			return result(at)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := clienttest.New(t)
			s.OnAttestBuild = func(context.Context, *assayv1.AttestBuildRequest) (*assayv1.AttestBuildResponse, error) {
				return &assayv1.AttestBuildResponse{Result: tt.answer()}, nil
			}
			c, _ := dial(t, s)
			_, err := c.AttestBuild(t.Context(), someBuild)
			wantDishonest(t, err, tt.text)
		})
	}
}

func result(at *assayv1.Attestation) *assayv1.AttestResult {
	return &assayv1.AttestResult{Attestation: at}
}

// TestListedLevel: an operator who trusts a builder less by now is believed, one
// who says that more was signed is not.
func TestListedLevel(t *testing.T) {
	s := clienttest.New(t)
	at := clienttest.BuildAttestation(someBuild, hashed("a", "a"))
	s.OnGetAttestation = func(context.Context, *assayv1.GetAttestationRequest) (*assayv1.GetAttestationResponse, error) {
		return &assayv1.GetAttestationResponse{Attestation: at}, nil
	}
	c, _ := dial(t, s)
	for level := int32(0); level <= 3; level++ {
		at.SlsaBuildLevel = level
		_, err := c.GetAttestation(t.Context(), at.GetAttestationId())
		if level <= 1 {
			wantCode(t, err, "")
		} else {
			wantDishonest(t, err, "SLSA Build level")
		}
	}
}

func TestAttestBuildRefusal(t *testing.T) {
	s := clienttest.New(t)
	s.OnAttestBuild = func(context.Context, *assayv1.AttestBuildRequest) (*assayv1.AttestBuildResponse, error) {
		return nil, clienttest.Refuse(codes.FailedPrecondition, "CODEBUILD_NOT_FINISHED", "the build is still running")
	}
	c, _ := dial(t, s)
	_, err := c.AttestBuild(t.Context(), someBuild)
	wantCode(t, err, "CODEBUILD_NOT_FINISHED")
}
