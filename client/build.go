package client

import (
	"context"
	"encoding/json"
	"regexp"
	"time"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// CodeBuildARNInvalid: not the ARN of one build of CodeBuild.
const CodeBuildARNInvalid = "BUILD_ARN_INVALID"

// buildTimeout bounds AttestBuild, in which the server fetches the artifacts.
const buildTimeout = 30 * time.Minute

// buildARN is the shape of arn:PARTITION:codebuild:REGION:ACCOUNT:build/PROJECT:UUID.
// The server parses it for good.
var buildARN = regexp.MustCompile(`^arn:aws(-[a-z]+){0,3}:codebuild:[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}:[0-9]{12}:` +
	`build/[A-Za-z0-9][A-Za-z0-9_-]{1,254}:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// AttestBuild has the server attest a finished build of AWS CodeBuild: it reads the
// build from AWS, fetches what the build left in S3 and hashes it. Nothing in the
// statement is the caller's word but which build it is about, and so that is what
// the answer is held to.
func (c *Client) AttestBuild(ctx context.Context, arn string) (*Attested, error) {
	if !buildARN.MatchString(arn) {
		return nil, badInput(CodeBuildARNInvalid, "%.300q is not arn:aws:codebuild:REGION:ACCOUNT:build/PROJECT:UUID", arn)
	}
	var resp *assayv1.AttestBuildResponse
	err := c.authenticated(ctx, buildTimeout, func(ctx context.Context) (err error) {
		resp, err = c.attestation.AttestBuild(ctx, &assayv1.AttestBuildRequest{BuildArn: arn})
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := checkBuildAttested(resp.GetResult(), arn); err != nil {
		return nil, err
	}
	if err := checkGenerated(resp.GetResult()); err != nil {
		return nil, err
	}
	return attestedOf(resp.GetResult()), nil
}

// checkBuildAttested refuses an answer that is not provenance of this very build,
// over bytes that the server hashed.
func checkBuildAttested(result *assayv1.AttestResult, arn string) error {
	statement, err := checkProvenance(result.GetAttestation())
	if err != nil {
		return err
	}
	// ParseStatement has refused duplicate and case-variant names in the predicate.
	var predicate struct {
		RunDetails struct {
			Metadata struct {
				InvocationID string `json:"invocationId"`
			} `json:"metadata"`
		} `json:"runDetails"`
	}
	if err := json.Unmarshal(statement.Predicate, &predicate); err != nil {
		return dishonest("the provenance: %w", err)
	}
	at := result.GetAttestation()
	signed := predicate.RunDetails.Metadata.InvocationID
	if signed != arn || at.GetInvocationId() != arn {
		return dishonest("the provenance is of %.300q and listed as of %.300q, want %q", signed, at.GetInvocationId(), arn)
	}
	for _, s := range at.GetSubjects() {
		if s.GetOrigin() != assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED {
			return dishonest("the server did not hash %q itself, and nobody else could have", s.GetName())
		}
	}
	return nil
}
