package client

import (
	"context"
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

const (
	// webIdentityAlgorithm gives the shorter of the two kinds of token.
	webIdentityAlgorithm = "ES384"
	webIdentitySeconds   = 300
)

// AWSWebIdentity returns a credential source for roles of an AWS account that has
// outbound web identity federation enabled: a token of sts:GetWebIdentityToken. The
// role needs the permission, and the service needs the account's issuer in its
// configuration, but never asks AWS about a caller.
//
// With opts.BuildTag, in a CodeBuild job, the token names the build in that request
// tag. The service believes the tag only if its configuration states that the
// organisation pins it to ${codebuild:BuildArn}.
func AWSWebIdentity(lookup func(string) (string, bool), opts AWSOptions) CredentialSource {
	return &webIdentity{env: environment(lookup), opts: opts}
}

type webIdentity struct {
	env  func(string) string
	opts AWSOptions
}

func (w *webIdentity) Credential(ctx context.Context, audience string) (*assayv1.ExchangeRequest, error) {
	id, err := w.identity(ctx)
	if err != nil {
		return nil, err
	}
	creds, err := id.retrieve(ctx)
	if err != nil {
		return nil, err
	}
	client := sts.New(sts.Options{
		Region:     id.region,
		HTTPClient: w.opts.HTTPClient,
		Retryer:    aws.NopRetryer{}, // the session's own retries are enough
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return creds, nil
		}),
	})
	in := &sts.GetWebIdentityTokenInput{
		Audience:         []string{audience},
		SigningAlgorithm: aws.String(webIdentityAlgorithm),
		DurationSeconds:  aws.Int32(webIdentitySeconds),
	}
	if id.build != "" {
		in.Tags = []types.Tag{{Key: aws.String(w.opts.BuildTag), Value: aws.String(id.build)}}
	}
	out, err := client.GetWebIdentityToken(ctx, in)
	if err != nil {
		return nil, webIdentityError(ctx, err)
	}
	token := aws.ToString(out.WebIdentityToken)
	if len(token) > maxOIDCTokenBytes || strings.Count(token, ".") != 2 {
		return nil, newError(ErrUnavailable, CodeCredentialUnavailable, "STS answered with something of %d bytes that is no JWT, limit %d", len(token), maxOIDCTokenBytes)
	}
	return &assayv1.ExchangeRequest{Credential: &assayv1.ExchangeRequest_OidcToken{OidcToken: token}}, nil
}

// identity is the job's own if the build is to be named: only to requests of the
// role session that CodeBuild made does AWS add codebuild:BuildArn.
func (w *webIdentity) identity(ctx context.Context) (*awsIdentity, error) {
	if w.opts.BuildTag == "" {
		return roleIdentity(ctx, w.env, w.opts)
	}
	id, err := codeBuildIdentity(w.env)
	if err == nil && w.opts.Credentials != nil {
		id.provider = w.opts.Credentials
	}
	return id, err
}

func webIdentityError(ctx context.Context, err error) error {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return unavailable(ctx, err) // the network's, or no answer that can be read
	}
	if api.ErrorFault() == smithy.FaultServer || retry.IsErrorThrottles(retry.DefaultThrottles).IsErrorThrottle(err) == aws.TrueTernary ||
		retry.IsErrorRetryables(retry.DefaultRetryables).IsErrorRetryable(err) == aws.TrueTernary {
		return unavailable(ctx, err)
	}
	hint := ""
	switch api.ErrorCode() {
	case "OutboundWebIdentityFederationDisabled", "OutboundWebIdentityFederationDisabledException":
		hint = "; enable outbound web identity federation in the account (iam:EnableOutboundWebIdentityFederation)"
	case "AccessDenied", "AccessDeniedException":
		hint = "; the role needs sts:GetWebIdentityToken, and sts:TagGetWebIdentityToken for tags"
	}
	return newError(ErrUnauthenticated, CodeCredentialRefused, "%w%s", err, hint)
}
