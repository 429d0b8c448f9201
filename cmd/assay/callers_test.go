package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// callers is one of each kind, with all that a server can tell of it; "everything"
// is one that only a hostile server could send.
func callers() map[string]*assayv1.Caller {
	gitHub := &assayv1.GitHubActionsClaims{
		Repository: "acme/app", RepositoryId: 9007199254740993, RepositoryOwner: "acme", RepositoryOwnerId: 7,
		WorkflowRef:    "acme/app/.github/workflows/release.yml@refs/heads/main",
		JobWorkflowRef: "acme/builders/.github/workflows/build.yml@refs/tags/v1", JobWorkflowSha: "a1b2",
		Ref: "refs/pull/7/merge", Sha: "6113728f27ae82c7b1a177c8d03f9e96e0adf246", EventName: "pull_request", PullRequest: true, HeadRepository: "fork",
		Environment: "prod", RunnerEnvironment: "self-hosted", RunId: 9007199254740995, RunAttempt: 2, ServerUrl: "https://github.com",
		RepositoryProperties: []string{"team=payments", "tier=1"}, RefProtected: "false",
	}
	codeBuild := &assayv1.CodeBuildFacts{
		BuildArn:    "arn:aws:codebuild:eu-west-1:111122223333:build/app:0d5c3c5e-1c1f-4f0e-9c52-3f1c63c1a6f5",
		ProjectArn:  "arn:aws:codebuild:eu-west-1:111122223333:project/app",
		BuildNumber: 42, Initiator: "alice", ServiceRole: "arn:aws:iam::111122223333:role/codebuild-app", Mode: "in-job",
		SourceType: "GITHUB", SourceLocation: "https://github.com/acme/app.git", SourceVersion: "refs/heads/main",
		ResolvedSourceVersion: "6113728f27ae82c7b1a177c8d03f9e96e0adf246", Image: "aws/codebuild/standard:7.0", PrivilegedMode: true,
		Overrides: []string{"environment.privilegedMode", "source.version"}, StartTime: timestamppb.New(time.Unix(1760000000, 0)),
		BuildBatchArn: "arn:aws:codebuild:eu-west-1:111122223333:build-batch/app:0d5c3c5e-1c1f-4f0e-9c52-3f1c63c1a6f6",
	}
	role := &assayv1.AWSRoleFacts{
		Account: "111122223333", RoleArn: "arn:aws:iam::111122223333:role/deploy", SessionName: "i-0abc", Via: "web-identity",
		OrganizationId: "o-abc123", PrincipalTags: []string{"team=payments"},
		LambdaFunctionArn: "arn:aws:lambda:eu-west-1:111122223333:function:gate", Ec2InstanceArn: "arn:aws:ec2:eu-west-1:111122223333:instance/i-0abc",
	}
	workload := &assayv1.WorkloadFacts{
		Platform: "gitlab", Subject: "project/123456", Account: "acme", AccountId: "77", Repository: "https://gitlab.com/acme/app", RepositoryId: "123456",
		Ref: "refs/heads/main", Commit: "6113728f27ae82c7b1a177c8d03f9e96e0adf246", Event: "merge_request_event", Runner: "hosted", Environment: "prod",
		BuildConfigUri: "gitlab.com/acme/app//.gitlab-ci.yml@refs/heads/main", BuildConfigDigest: "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
		InvocationId: "https://gitlab.com/acme/app/-/jobs/99", Properties: []string{"user_access_level=maintainer"}, PullRequest: true,
	}
	human := &assayv1.HumanFacts{Subject: "00u1a2b3c4d5e6f7g8h9", Email: "alice@example.com", Name: "Alice Example", Groups: []string{"engineering", "security"}}
	return map[string]*assayv1.Caller{
		"github": {
			Kind: assayv1.CallerKind_CALLER_KIND_GITHUB_ACTIONS, Issuer: "https://token.actions.githubusercontent.com", DisplayName: "github.com/acme/app",
			BuilderId: "https://assay.example/builders/github-actions/self-hosted", SlsaBuildLevel: 1, GithubActions: gitHub,
		},
		"codebuild": {
			Kind: assayv1.CallerKind_CALLER_KIND_CODEBUILD, Issuer: "https://sts.amazonaws.com", DisplayName: "codebuild app",
			BuilderId: "https://assay.example/builders/codebuild/in-job", SlsaBuildLevel: 1, Codebuild: codeBuild,
			Downgrades: []string{"debug-session", "service-role-override"}, Roles: []string{"attestor"},
		},
		"aws-role": {
			Kind: assayv1.CallerKind_CALLER_KIND_AWS_ROLE, Issuer: "https://sts.amazonaws.com", DisplayName: "111122223333/deploy",
			BuilderId: "https://assay.example/builders/aws-role", AwsRole: role, Roles: []string{"deployer"},
		},
		"workload": {
			Kind: assayv1.CallerKind_CALLER_KIND_WORKLOAD, Issuer: "https://gitlab.com", DisplayName: "gitlab.com/acme/app",
			BuilderId: "https://assay.example/builders/gitlab/hosted", SlsaBuildLevel: 2, Workload: workload,
		},
		"human": {
			Kind: assayv1.CallerKind_CALLER_KIND_HUMAN, Issuer: "https://sso.example.com", DisplayName: "alice@example.com", Human: human,
			Roles: []string{"auditor", "security"},
		},
		"everything": {
			Kind: 99, BuilderId: "x", Downgrades: []string{""}, Roles: []string{"a", ""},
			GithubActions: gitHub, Codebuild: codeBuild, AwsRole: role, Workload: workload, Human: human,
		},
	}
}

// scribble sets every string that a message holds, however deep, to s.
func scribble(m protoreflect.Message, s string) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Kind() == protoreflect.StringKind && fd.IsList():
			for i := range v.List().Len() {
				v.List().Set(i, protoreflect.ValueOfString(s))
			}
		case fd.Kind() == protoreflect.StringKind && !fd.IsMap():
			m.Set(fd, protoreflect.ValueOfString(s))
		case fd.Kind() == protoreflect.MessageKind && !fd.IsList() && !fd.IsMap():
			scribble(v.Message(), s)
		}
		return true
	})
}

// bearer is the session token of a call.
func bearer(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	return strings.TrimPrefix(strings.Join(md.Get("authorization"), ","), "Bearer ")
}

// issueCertificate writes cert.pem and key.pem, for a SPIFFE id.
func issueCertificate(t testing.TB, dir, id string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	uri, err := url.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), URIs: []*url.URL{uri}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, dir, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
}
