package client

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/stsproof"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// AWSOptions says which AWS identity to prove. The zero value is right for a job
// that is set up for the AWS SDK.
type AWSOptions struct {
	// Region is where the service asks STS. Default: AWS_REGION, AWS_DEFAULT_REGION,
	// then what the SDK's configuration files say.
	Region string
	// Credentials are those of the role session to prove. Default: the SDK's own
	// chain, which reads the process's environment and files, and asks the container
	// or instance it runs in.
	Credentials aws.CredentialsProvider
	// BuildTag is the key of the request tag that names the CodeBuild build in a web
	// identity token, as the service's configuration has it. Only AWSWebIdentity reads
	// it; empty asks for a token without tags.
	BuildTag string
	// HTTPClient is how AWSWebIdentity reaches STS. Default: the SDK's.
	HTTPClient aws.HTTPClient
	// Now is the clock that a proof is dated by; time.Now if nil.
	Now func() time.Time
}

// challenged is a CredentialSource whose credential answers a challenge of the
// server. A session asks it through CredentialWithChallenge instead of Credential.
type challenged interface {
	// CredentialWithChallenge is Credential, and may call challenge once: that returns
	// a nonce for this audience, and an error for any other.
	CredentialWithChallenge(ctx context.Context, audience string, challenge func(context.Context) (*assayv1.ChallengeResponse, error)) (*assayv1.ExchangeRequest, error)
}

// CodeBuild returns the credential source of an AWS CodeBuild job: a signed STS
// request that proves the job's own role session, and names the build. lookup
// reads the environment, as os.LookupEnv does, each time a credential is asked for.
//
// The credentials are those that CodeBuild gives the job. Others that a buildspec
// may have put into AWS_ACCESS_KEY_ID, of a role it deploys with for example, say
// nothing about the build and are not looked at.
func CodeBuild(lookup func(string) (string, bool)) CredentialSource {
	return &stsProofs{now: time.Now, resolve: func(context.Context) (*awsIdentity, error) {
		return codeBuildIdentity(environment(lookup))
	}}
}

// AWS returns a credential source for a role session on AWS that is no build: a
// Lambda function, a container, an instance, a deploy stage. The proof is a signed
// STS request; it needs no permission.
func AWS(lookup func(string) (string, bool), opts AWSOptions) CredentialSource {
	now := opts.Now
	if now == nil {
		now = time.Now
	}
	return &stsProofs{now: now, resolve: func(ctx context.Context) (*awsIdentity, error) {
		return roleIdentity(ctx, environment(lookup), opts)
	}}
}

// stsProofs signs STS proofs for whatever identity resolve finds.
type stsProofs struct {
	now     func() time.Time
	resolve func(context.Context) (*awsIdentity, error)
}

// Credential refuses: there is no proof without a challenge.
func (*stsProofs) Credential(context.Context, string) (*assayv1.ExchangeRequest, error) {
	return nil, newError(ErrInvalid, CodeCredentialRefused, "an STS proof answers a challenge of the server, and there is none")
}

func (s *stsProofs) CredentialWithChallenge(ctx context.Context, audience string, challenge func(context.Context) (*assayv1.ChallengeResponse, error)) (*assayv1.ExchangeRequest, error) {
	// Credentials first: a nonce that waits for them only grows old.
	id, err := s.resolve(ctx)
	if err != nil {
		return nil, err
	}
	creds, err := id.retrieve(ctx)
	if err != nil {
		return nil, err
	}
	c, err := challenge(ctx)
	if err != nil {
		return nil, err
	}
	p, err := stsproof.Sign(ctx, creds, id.region, audience, c.GetNonce(), id.build, s.now())
	if err != nil {
		return nil, fromRefusal(err)
	}
	return &assayv1.ExchangeRequest{Credential: &assayv1.ExchangeRequest_StsProof{StsProof: &assayv1.StsProof{
		AccessKeyId: p.AccessKeyID, Region: p.Region, Date: p.Date, SessionToken: p.SessionToken,
		Signature: p.Signature, Nonce: p.Nonce, BuildId: p.BuildID,
	}}}, nil
}

// fromRefusal keeps the code of what this machine's credentials are refused for.
func fromRefusal(err error) error {
	return newError(ErrUnauthenticated, string(refusal.CodeOf(err)), "AWS credentials: %w", err)
}

// awsIdentity is who to prove to be, and where.
type awsIdentity struct {
	provider aws.CredentialsProvider
	// local says that the provider is a service on this machine, so that a failure
	// of it may pass; the SDK's chain has done all its waiting already.
	local  bool
	region string
	build  string // a CodeBuild build ARN, or empty
}

func (id *awsIdentity) retrieve(ctx context.Context) (aws.Credentials, error) {
	creds, err := id.provider.Retrieve(ctx)
	switch {
	case err == nil && creds.HasKeys():
		return creds, nil
	case err == nil:
		return creds, newError(ErrUnauthenticated, CodeCredentialMissing, "the AWS credentials found are empty")
	case id.local || ctx.Err() != nil:
		return creds, unavailable(ctx, err)
	}
	return creds, newError(ErrUnauthenticated, CodeCredentialMissing, "no AWS credentials: %w", err)
}

// environment reads variables; one that is not set is empty.
func environment(lookup func(string) (string, bool)) func(string) string {
	return func(name string) string { v, _ := lookup(name); return v }
}

// roleIdentity is what opts say, completed from the SDK's configuration. lookup is
// asked for the region only: the SDK reads the process's environment itself.
func roleIdentity(ctx context.Context, env func(string) string, opts AWSOptions) (*awsIdentity, error) {
	id := &awsIdentity{provider: opts.Credentials, region: opts.Region}
	if id.region == "" {
		id.region = regionOf(env)
	}
	if id.provider == nil {
		cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(id.region))
		if err != nil {
			return nil, newError(ErrUnauthenticated, CodeCredentialMissing, "AWS configuration: %w", err)
		}
		id.provider, id.region = cfg.Credentials, cfg.Region
	}
	if id.region == "" {
		return nil, newError(ErrUnauthenticated, CodeCredentialMissing, "no AWS region: set AWS_REGION")
	}
	return id, nil
}

func regionOf(env func(string) string) string {
	if region := env("AWS_REGION"); region != "" {
		return region
	}
	return env("AWS_DEFAULT_REGION")
}

// buildRegion takes the region out of a build's ARN. A job may point AWS_REGION at
// wherever it deploys to; the ARN says where it runs. The service checks the rest.
func buildRegion(arn string) (string, bool) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "codebuild" {
		return "", false
	}
	_, partition, ok := stsproof.Endpoint(parts[3])
	return parts[3], ok && partition == parts[1]
}
