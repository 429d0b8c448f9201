// Package clienttest is an Assay server whose answers a test writes: real gRPC
// over loopback, with an honest answer wherever the test does not want another.
// It is how client and command are shown servers that lie, stumble or go away.
//
//	s := clienttest.New(t)
//	s.OnVerify = func(ctx context.Context, req *assayv1.VerifyRequest) (*assayv1.VerifyResponse, error) {
//		return &assayv1.VerifyResponse{VerificationResult: assayv1.VerificationResult_VERIFICATION_RESULT_PASSED}, nil
//	}
//	c, err := client.Dial(ctx, client.Config{Server: s.URL, Credential: clienttest.Credential{}})
//
// What it "signs" carries a signature of zeroes, but what a Server's Signer makes: that
// is signed and logged, and verifies against the Server's trusted root. Nothing but tests
// imports it.
package clienttest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Server answers as its On fields say, and honestly where they are nil. Set them
// before the first call.
type Server struct {
	// URL is what to dial.
	URL string
	// Signer signs what has to verify. GetTrustedRoot tells its keys.
	Signer *Signer
	// Exchanges counts the sessions asked for.
	Exchanges atomic.Int64

	OnChallenge        func(context.Context, *assayv1.ChallengeRequest) (*assayv1.ChallengeResponse, error)
	OnExchange         func(context.Context, *assayv1.ExchangeRequest) (*assayv1.ExchangeResponse, error)
	OnWhoAmI           func(context.Context, *assayv1.WhoAmIRequest) (*assayv1.WhoAmIResponse, error)
	OnAttest           func(assayv1.AttestationService_AttestServer) error
	OnAttestDigests    func(context.Context, *assayv1.AttestDigestsRequest) (*assayv1.AttestDigestsResponse, error)
	OnAttestBuild      func(context.Context, *assayv1.AttestBuildRequest) (*assayv1.AttestBuildResponse, error)
	OnUploadEvidence   func(assayv1.AttestationService_UploadEvidenceServer) error
	OnVerify           func(context.Context, *assayv1.VerifyRequest) (*assayv1.VerifyResponse, error)
	OnListAttestations func(context.Context, *assayv1.ListAttestationsRequest) (*assayv1.ListAttestationsResponse, error)
	OnGetAttestation   func(context.Context, *assayv1.GetAttestationRequest) (*assayv1.GetAttestationResponse, error)
	OnSearchComponents func(context.Context, *assayv1.SearchComponentsRequest) (*assayv1.SearchComponentsResponse, error)
	OnGetTrustedRoot   func(context.Context, *assayv1.GetTrustedRootRequest) (*assayv1.GetTrustedRootResponse, error)
}

// services keeps the RPC methods off Server, whose fields are the interface.
type services struct {
	assayv1.UnimplementedIdentityServiceServer
	assayv1.UnimplementedAttestationServiceServer
	assayv1.UnimplementedVerificationServiceServer
	assayv1.UnimplementedAuditServiceServer
	*Server
}

// New starts a server on loopback and stops it when the test ends.
func New(tb testing.TB) *Server {
	tb.Helper()
	return start(tb, "http")
}

// NewTLS is New with TLS. The second result is a file that holds its certificate.
// It asks clients for a certificate, takes any, and needs none: what came is in
// the peer of a call's context.
func NewTLS(tb testing.TB) (*Server, string) {
	tb.Helper()
	// httptest has a certificate for 127.0.0.1 at hand.
	h := httptest.NewTLSServer(nil)
	defer h.Close()
	caFile := filepath.Join(tb.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})
	if err := os.WriteFile(caFile, block, 0o600); err != nil {
		tb.Fatal(err)
	}
	config := &tls.Config{
		Certificates: h.TLS.Certificates, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
	}
	return start(tb, "https", grpc.Creds(credentials.NewTLS(config))), caFile
}

func start(tb testing.TB, scheme string, options ...grpc.ServerOption) *Server {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{URL: scheme + "://" + l.Addr().String(), Signer: NewSigner()}
	g := grpc.NewServer(append(options, grpc.MaxSendMsgSize(256<<20), grpc.InitialWindowSize(4<<20), grpc.InitialConnWindowSize(16<<20))...)
	impl := services{Server: s}
	assayv1.RegisterIdentityServiceServer(g, impl)
	assayv1.RegisterAttestationServiceServer(g, impl)
	assayv1.RegisterVerificationServiceServer(g, impl)
	assayv1.RegisterAuditServiceServer(g, impl)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	tb.Cleanup(func() {
		g.Stop()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	return s
}

// Credential is a source whose tokens any Server accepts.
type Credential struct{}

// Credential returns a token that names its audience.
func (Credential) Credential(_ context.Context, audience string) (*assayv1.ExchangeRequest, error) {
	return &assayv1.ExchangeRequest{Credential: &assayv1.ExchangeRequest_OidcToken{OidcToken: "token for " + audience}}, nil
}

func (s services) Challenge(ctx context.Context, req *assayv1.ChallengeRequest) (*assayv1.ChallengeResponse, error) {
	if s.OnChallenge != nil {
		return s.OnChallenge(ctx, req)
	}
	nonce := make([]byte, 32)
	rand.Read(nonce)
	return &assayv1.ChallengeResponse{
		Nonce: nonce, ExpireTime: timestamppb.New(time.Now().Add(5 * time.Minute)), Audience: s.URL,
	}, nil
}

func (s services) Exchange(ctx context.Context, req *assayv1.ExchangeRequest) (*assayv1.ExchangeResponse, error) {
	n := s.Exchanges.Add(1)
	if s.OnExchange != nil {
		return s.OnExchange(ctx, req)
	}
	return &assayv1.ExchangeResponse{
		SessionToken: fmt.Sprintf("session-%d", n),
		ExpireTime:   timestamppb.New(time.Now().Add(15 * time.Minute)),
	}, nil
}

func (s services) WhoAmI(ctx context.Context, req *assayv1.WhoAmIRequest) (*assayv1.WhoAmIResponse, error) {
	if s.OnWhoAmI != nil {
		return s.OnWhoAmI(ctx, req)
	}
	return &assayv1.WhoAmIResponse{Caller: &assayv1.Caller{
		Kind: assayv1.CallerKind_CALLER_KIND_GITHUB_ACTIONS, DisplayName: "github.com/acme/app",
	}}, nil
}

func (s services) Attest(stream assayv1.AttestationService_AttestServer) error {
	if s.OnAttest != nil {
		return s.OnAttest(stream)
	}
	subjects, err := Receive(stream)
	if err != nil {
		return err
	}
	return SendResult(stream, Attestation(subjects...))
}

func (s services) AttestDigests(ctx context.Context, req *assayv1.AttestDigestsRequest) (*assayv1.AttestDigestsResponse, error) {
	if s.OnAttestDigests != nil {
		return s.OnAttestDigests(ctx, req)
	}
	for _, subject := range req.GetSubjects() {
		subject.Origin = assayv1.DigestOrigin_DIGEST_ORIGIN_CLAIMED
	}
	return &assayv1.AttestDigestsResponse{Result: &assayv1.AttestResult{Attestation: Attestation(req.GetSubjects()...)}}, nil
}

func (s services) AttestBuild(ctx context.Context, req *assayv1.AttestBuildRequest) (*assayv1.AttestBuildResponse, error) {
	if s.OnAttestBuild != nil {
		return s.OnAttestBuild(ctx, req)
	}
	return &assayv1.AttestBuildResponse{Result: &assayv1.AttestResult{Attestation: BuildAttestation(req.GetBuildArn(), &assayv1.Subject{
		Name: "artifacts/app.zip", Digest: map[string]string{"sha256": hex.EncodeToString(sha256.New().Sum(nil))},
		Origin: assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED,
	})}}, nil
}

func (s services) Verify(ctx context.Context, req *assayv1.VerifyRequest) (*assayv1.VerifyResponse, error) {
	if s.OnVerify != nil {
		return s.OnVerify(ctx, req)
	}
	return Allow(req), nil
}

func (s services) ListAttestations(ctx context.Context, req *assayv1.ListAttestationsRequest) (*assayv1.ListAttestationsResponse, error) {
	if s.OnListAttestations != nil {
		return s.OnListAttestations(ctx, req)
	}
	return &assayv1.ListAttestationsResponse{}, nil
}

func (s services) GetAttestation(ctx context.Context, req *assayv1.GetAttestationRequest) (*assayv1.GetAttestationResponse, error) {
	if s.OnGetAttestation != nil {
		return s.OnGetAttestation(ctx, req)
	}
	return nil, Refuse(codes.NotFound, "NOT_FOUND", "no such attestation")
}

func (s services) SearchComponents(ctx context.Context, req *assayv1.SearchComponentsRequest) (*assayv1.SearchComponentsResponse, error) {
	if s.OnSearchComponents != nil {
		return s.OnSearchComponents(ctx, req)
	}
	return &assayv1.SearchComponentsResponse{}, nil
}

func (s services) UploadEvidence(stream assayv1.AttestationService_UploadEvidenceServer) error {
	if s.OnUploadEvidence != nil {
		return s.OnUploadEvidence(stream)
	}
	header, document, err := ReceiveEvidence(stream)
	if err != nil {
		return err
	}
	at := s.Signer.Evidence(header.GetPredicateType(), document, header.GetSubject())
	return stream.SendAndClose(&assayv1.UploadEvidenceResponse{Result: &assayv1.AttestResult{Attestation: at}})
}

func (s services) GetTrustedRoot(ctx context.Context, req *assayv1.GetTrustedRootRequest) (*assayv1.GetTrustedRootResponse, error) {
	if s.OnGetTrustedRoot != nil {
		return s.OnGetTrustedRoot(ctx, req)
	}
	return s.Signer.TrustedRoot(), nil
}

// Receive takes a whole upload and returns what it was about, hashed here.
func Receive(stream assayv1.AttestationService_AttestServer) ([]*assayv1.Subject, error) {
	var subjects []*assayv1.Subject
	h := sha256.New()
	var size int64
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return subjects, nil
		}
		if err != nil {
			return nil, err
		}
		switch m := req.GetMessage().(type) {
		case *assayv1.AttestRequest_ArtifactStart:
			h.Reset()
			size = 0
			subjects = append(subjects, &assayv1.Subject{Name: m.ArtifactStart.GetName(), Origin: assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED})
		case *assayv1.AttestRequest_Chunk:
			h.Write(m.Chunk)
			size += int64(len(m.Chunk))
		case *assayv1.AttestRequest_ArtifactEnd:
			last := subjects[len(subjects)-1]
			last.Digest, last.Size = map[string]string{"sha256": hex.EncodeToString(h.Sum(nil))}, size
			p := &assayv1.AttestProgress{
				Stage: assayv1.AttestStage_ATTEST_STAGE_RECEIVED, ArtifactIndex: int32(len(subjects) - 1), ArtifactName: last.GetName(),
			}
			if err := stream.Send(&assayv1.AttestResponse{Message: &assayv1.AttestResponse_Progress{Progress: p}}); err != nil {
				return nil, err
			}
		}
	}
}

// SendResult ends an upload with an answer.
func SendResult(stream assayv1.AttestationService_AttestServer, at *assayv1.Attestation) error {
	result := &assayv1.AttestResult{Attestation: at}
	return stream.Send(&assayv1.AttestResponse{Message: &assayv1.AttestResponse_Result{Result: result}})
}

// Predicate is what Attestation states: a build of acme/app by a sandbox.
const Predicate = `{"buildDefinition":{"buildType":"https://actions.github.io/buildtypes/workflow/v1",` +
	`"externalParameters":{"workflow":{"path":".github/workflows/release.yml","ref":"refs/heads/main","repository":"https://github.com/acme/app"}},` +
	`"resolvedDependencies":[{"digest":{"gitCommit":"6113728f27ae82c7b1a177c8d03f9e96e0adf246"},"uri":"git+https://github.com/acme/app@refs/heads/main"}]},` +
	`"runDetails":{"builder":{"id":"https://assay.example/builders/dev"},"metadata":{"invocationId":"https://github.com/acme/app/actions/runs/7/attempts/1"}}}`

// Attestation is an honest attestation of subjects.
func Attestation(subjects ...*assayv1.Subject) *assayv1.Attestation {
	bundle, id := Bundle(attest.PredicateSLSAProvenanceV1, Predicate, true, subjects...)
	return &assayv1.Attestation{
		AttestationId:  id,
		PredicateType:  attest.PredicateSLSAProvenanceV1,
		Subjects:       subjects,
		BuilderId:      "https://assay.example/builders/dev",
		BuildType:      "https://actions.github.io/buildtypes/workflow/v1",
		InvocationId:   "https://github.com/acme/app/actions/runs/7/attempts/1",
		SourceUri:      "git+https://github.com/acme/app@refs/heads/main",
		SourceDigest:   map[string]string{"gitCommit": "6113728f27ae82c7b1a177c8d03f9e96e0adf246"},
		CreateTime:     timestamppb.New(time.Unix(1760000000, 0)),
		LogIndex:       logIndex,
		Bundle:         bundle,
		SlsaBuildLevel: 0,
	}
}

// BuildPredicate is what BuildAttestation states: a finished build of CodeBuild
// whose debug session keeps it below its builder's best level.
func BuildPredicate(buildARN string) string {
	arn, err := json.Marshal(buildARN)
	if err != nil {
		panic(err)
	}
	return `{"buildDefinition":{"buildType":"https://assay.build/buildtypes/codebuild/v1",` +
		`"externalParameters":{"project":{"arn":"arn:aws:codebuild:eu-west-1:111122223333:project/app"},` +
		`"source":{"type":"GITHUB","location":"https://github.com/acme/app.git","version":"refs/heads/main"},` +
		`"environment":{"image":"aws/codebuild/standard:7.0","privilegedMode":false},` +
		`"overrides":[{"field":"debugSessionEnabled"},{"field":"environment.image"}]},` +
		`"internalParameters":{"codebuild":{"initiator":"GitHub-Hookshot/1","mode":"post-build","serviceRole":"arn:aws:iam::111122223333:role/app"},` +
		`"assay":{"slsaBuildLevel":1,"downgrades":["debug-session"]}},` +
		`"resolvedDependencies":[{"digest":{"gitCommit":"6113728f27ae82c7b1a177c8d03f9e96e0adf246"},"uri":"git+https://github.com/acme/app@refs/heads/main"},` +
		`{"digest":{"sha256":"` + strings.Repeat("ab", 32) + `"},"uri":"buildspec.yml"}]},` +
		`"runDetails":{"builder":{"id":"https://assay.example/builders/codebuild/post-build"},"metadata":{"invocationId":` + string(arn) + `}}}`
}

// BuildAttestation is an honest attestation of what a build of CodeBuild made.
func BuildAttestation(buildARN string, subjects ...*assayv1.Subject) *assayv1.Attestation {
	bundle, id := Bundle(attest.PredicateSLSAProvenanceV1, BuildPredicate(buildARN), true, subjects...)
	at := Attestation(subjects...)
	at.AttestationId, at.Bundle = id, bundle
	at.BuilderId = "https://assay.example/builders/codebuild/post-build"
	at.BuildType = "https://assay.build/buildtypes/codebuild/v1"
	at.InvocationId = buildARN
	at.SlsaBuildLevel, at.Downgrades = 1, []string{"debug-session"}
	return at
}

const (
	logIndex       = 41
	integratedTime = 1760000000
)

// Bundle is a bundle of Assay's shape and the attestation id of its statement.
// The signature and the proof are zeroes. Impossible subjects panic: the test is wrong.
func Bundle(predicateType, predicate string, logged bool, subjects ...*assayv1.Subject) (bundle []byte, id string) {
	st := &attest.Statement{Type: attest.StatementTypeV1, PredicateType: predicateType, Predicate: json.RawMessage(predicate)}
	for i, s := range subjects {
		name := s.GetName()
		if name == "" {
			name = fmt.Sprintf("subject-%d", i)
		}
		st.Subjects = append(st.Subjects, attest.Subject{Name: name, Digest: s.GetDigest()})
	}
	payload, err := st.Marshal()
	if err != nil {
		panic(err)
	}
	keyID := hex.EncodeToString(bytes.Repeat([]byte{0xab}, 32))
	parts := &attest.BundleParts{
		PublicKeyHint: keyID,
		Envelope: &attest.Envelope{
			PayloadType: attest.PayloadTypeInToto, Payload: payload,
			Signatures: []attest.Signature{{KeyID: keyID, Sig: make([]byte, 70)}},
		},
	}
	if logged {
		parts.LogEntry = attest.LogEntry{
			LogIndex: logIndex, LogID: make([]byte, 32), Kind: "dsse", Version: "0.0.1", IntegratedTime: integratedTime,
			SET: make([]byte, 70), RootHash: make([]byte, 32), TreeSize: logIndex + 1, Hashes: [][]byte{make([]byte, 32)},
			Checkpoint: "assay.example\n", CanonicalizedBody: []byte("{}"),
		}
	}
	if bundle, err = attest.MarshalBundle(parts); err != nil {
		panic(err)
	}
	sum := sha256.Sum256(payload)
	return bundle, hex.EncodeToString(sum[:])
}

// Allow is an honest permission for everything asked.
func Allow(req *assayv1.VerifyRequest) *assayv1.VerifyResponse {
	resp := &assayv1.VerifyResponse{VerificationResult: assayv1.VerificationResult_VERIFICATION_RESULT_PASSED}
	for _, s := range req.GetSubjects() {
		resp.Decisions = append(resp.Decisions, Passed(s, req.GetEnvironment()))
	}
	return resp
}

// Summary is as much of a verification summary as a client looks at.
func Summary(result, environment string) string {
	return `{"verifier":{"id":"https://assay.example/environments/` + url.PathEscape(environment) + `"},"verificationResult":"` + result + `"}`
}

// Passed is an honest decision that a subject may be deployed.
func Passed(s *assayv1.Subject, environment string) *assayv1.Decision {
	summary, _ := Bundle(attest.PredicateVSA, Summary("PASSED", environment), true, s)
	return &assayv1.Decision{
		DecisionId: "0199c4de-0000-7000-8000-000000000001", Subject: s, Environment: environment,
		VerificationResult: assayv1.VerificationResult_VERIFICATION_RESULT_PASSED,
		Reason:             "ALLOWED",
		Message:            "allowed",
		Rules: []*assayv1.RuleResult{{
			RuleId: "attested", Effect: assayv1.RuleEffect_RULE_EFFECT_PERMIT, Satisfied: true, Message: "the artifact is attested",
		}},
		VerificationSummary: summary,
	}
}

// Failed is an honest denial.
func Failed(s *assayv1.Subject, environment string) *assayv1.Decision {
	summary, _ := Bundle(attest.PredicateVSA, Summary("FAILED", environment), false, s)
	return &assayv1.Decision{
		DecisionId: "0199c4de-0000-7000-8000-000000000002", Subject: s, Environment: environment,
		VerificationResult: assayv1.VerificationResult_VERIFICATION_RESULT_FAILED,
		Reason:             "DENIED_BY_RULE",
		Message:            "prod wants more",
		Rules: []*assayv1.RuleResult{
			{RuleId: "attested", Effect: assayv1.RuleEffect_RULE_EFFECT_PERMIT, Satisfied: true, Message: "the artifact is attested"},
			{
				RuleId: "prod-level", Effect: assayv1.RuleEffect_RULE_EFFECT_FORBID, Message: "prod wants SLSA Build level 2",
				Expected: "resource.level >= 2", Found: "resource.level is 0", Remedy: "build on a GitHub-hosted runner",
			},
		},
		VerificationSummary: summary,
	}
}

// Refuse is an error as the service sends it.
func Refuse(c codes.Code, reason, message string, more ...protoadapt.MessageV1) error {
	details := append([]protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: reason, Domain: "assay.build"}}, more...)
	st, err := status.New(c, reason+": "+message).WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return st.Err()
}

// KeyPEM is a new public key.
func KeyPEM() []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}
