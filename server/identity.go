package server

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/provenance"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/stsproof"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// CodeCredentialNotConfigured: a kind of credential that this deployment takes from
// nobody.
const CodeCredentialNotConfigured refusal.Code = "CREDENTIAL_NOT_CONFIGURED"

type identityService struct {
	assayv1.UnimplementedIdentityServiceServer
	verifier     *identity.Verifier
	aws          *identity.AWS          // nil where no account is configured
	certificates *identity.Certificates // nil where no authority is
	sessions     *identity.Sessions
	callers      *callers
	writer       *provenance.Writer
	audience     string
	now          func() time.Time
}

// Challenge hands out a nonce. It keeps nothing: the nonce carries its own proof,
// so that whoever asks for a million of them costs nothing but the asking.
func (s *identityService) Challenge(context.Context, *assayv1.ChallengeRequest) (*assayv1.ChallengeResponse, error) {
	if s.aws == nil {
		return nil, refusal.New(CodeCredentialNotConfigured, "this deployment takes proofs of no AWS account")
	}
	nonce, expires := s.aws.Challenge()
	return &assayv1.ChallengeResponse{Nonce: nonce, ExpireTime: timestamppb.New(expires), Audience: s.audience}, nil
}

// Exchange consumes a credential and opens a session. Another kind of
// credential is another case of verify and nothing more.
func (s *identityService) Exchange(ctx context.Context, req *assayv1.ExchangeRequest) (*assayv1.ExchangeResponse, error) {
	verified, err := s.verify(ctx, req)
	if err != nil {
		return nil, err
	}
	token, expires, err := s.sessions.Open(ctx, verified)
	if err != nil {
		return nil, err
	}
	caller, err := s.describe(verified.Caller)
	if err != nil {
		return nil, err
	}
	return &assayv1.ExchangeResponse{SessionToken: token, ExpireTime: timestamppb.New(expires), Caller: caller}, nil
}

func (s *identityService) verify(ctx context.Context, req *assayv1.ExchangeRequest) (*identity.Verified, error) {
	switch c := req.GetCredential().(type) {
	case *assayv1.ExchangeRequest_OidcToken:
		return s.verifier.VerifyOIDC(ctx, c.OidcToken)
	case *assayv1.ExchangeRequest_StsProof:
		if s.aws == nil {
			return nil, refusal.New(CodeCredentialNotConfigured, "this deployment takes proofs of no AWS account").InField("sts_proof")
		}
		p := c.StsProof
		return s.aws.VerifyProof(ctx, &stsproof.Proof{
			AccessKeyID: p.GetAccessKeyId(), Region: p.GetRegion(), Date: p.GetDate(), SessionToken: p.GetSessionToken(),
			Signature: p.GetSignature(), Nonce: p.GetNonce(), BuildID: p.GetBuildId(),
		})
	case *assayv1.ExchangeRequest_ClientCertificate:
		if s.certificates == nil {
			return nil, refusal.New(CodeCredentialNotConfigured, "this deployment trusts no authority for client certificates").InField("client_certificate")
		}
		return s.certificates.Verify(connectionState(ctx), s.now())
	}
	return nil, refusal.New(CodeRequestInvalid, "no credential").InField("credential")
}

// connectionState is the TLS of the connection that a call came by; nil for
// plaintext, and for JSON, which comes through this process.
func connectionState(ctx context.Context) *tls.ConnectionState {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil
	}
	return &info.State
}

func (s *identityService) WhoAmI(ctx context.Context, _ *assayv1.WhoAmIRequest) (*assayv1.WhoAmIResponse, error) {
	sess := sessionFrom(ctx)
	caller, err := s.describe(sess.caller)
	if err != nil {
		return nil, err
	}
	return &assayv1.WhoAmIResponse{Caller: caller, ExpireTime: timestamppb.New(sess.expires)}, nil
}

func (s *identityService) describe(c *identity.Caller) (*assayv1.Caller, error) {
	out, err := describeCaller(s.writer, c)
	if err != nil {
		return nil, err
	}
	out.Roles = s.callers.view(c).roles
	return out, nil
}
