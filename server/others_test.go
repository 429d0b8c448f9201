package server_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/oidctest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"google.golang.org/grpc/codes"
)

// TestVerifyHidesOthers: a denial tells what to reach and how, and what was found
// only to those who may read the attestation it was found in.
func TestVerifyHidesOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	idp := people(t, w)
	l := w.start(t, withPeople(idp), func(c *server.Config) {
		c.Identity.Issuers[0].AllowedOwnerIDs = append(c.Identity.Issuers[0].AllowedOwnerIDs, ownerID+1)
	}).login(t)
	made := l.digests(t, l.ctx, digests("secret-name", okDigest)...).GetAttestation().GetAttestationId()
	other := l.session(t, w.issuer.Mint(w.instance, oidctest.Claims{
		"repository_owner_id": fmt.Sprint(ownerID + 1), "repository_owner": "mallory", "repository": "mallory/toy",
		"workflow_ref":     "mallory/toy/.github/workflows/x.yml@refs/heads/main",
		"job_workflow_ref": "mallory/toy/.github/workflows/x.yml@refs/heads/main",
	}))
	verification, audit := assayv1.NewVerificationServiceClient(l.conn), assayv1.NewAuditServiceClient(l.conn)
	ask := func(ctx context.Context) *assayv1.Decision {
		resp, err := verification.Verify(ctx, &assayv1.VerifyRequest{Environment: "prod", Subjects: digests("app", okDigest)})
		if err != nil {
			t.Fatal(err)
		}
		d := resp.GetDecisions()[0]
		if d.GetReason() != "DENIED_BY_RULE" { // digests that are only claimed
			t.Errorf("reason %s", d.GetReason())
		}
		return d
	}
	mine := ask(l.ctx)
	if len(mine.GetFacts()) == 0 || len(mine.GetAttestationIds()) != 1 || mine.GetAttestationIds()[0] != made {
		t.Errorf("its own denial does not say what was found: %v", mine)
	}
	for name, ctx := range map[string]context.Context{"another tenant": other, "the same answer again": other} {
		theirs := ask(ctx)
		if len(theirs.GetFacts()) != 0 || len(theirs.GetAttestationIds()) != 0 || theirs.GetDecisionId() == mine.GetDecisionId() {
			t.Errorf("%s: facts %v, attestations %v", name, theirs.GetFacts(), theirs.GetAttestationIds())
		}
		remedies := 0
		for _, r := range theirs.GetRules() {
			if r.GetFound() != "" {
				t.Errorf("%s: rule %s found %s", name, r.GetRuleId(), r.GetFound())
			}
			if !r.GetSatisfied() && r.GetExpected() != "" && r.GetRemedy() != "" {
				remedies++
			}
		}
		if remedies == 0 || !strings.Contains(theirs.GetMessage(), "deployer") {
			t.Errorf("%s: nothing says what to do: %s", name, theirs.GetMessage())
		}
		stored, err := audit.GetDecision(ctx, &assayv1.GetDecisionRequest{DecisionId: theirs.GetDecisionId()})
		if err != nil || len(stored.GetDecision().GetFacts()) != 0 || strings.Contains(stored.String(), "octo-org/octo-app") {
			t.Errorf("%s: what is stored: %v, %v", name, stored, err)
		}
		_, err = audit.GetAttestation(ctx, &assayv1.GetAttestationRequest{AttestationId: made})
		wantReason(t, err, codes.NotFound, "NOT_FOUND")
	}
	if shown := ask(l.session(t, person(idp, "d", "deployer"))); len(shown.GetFacts()) == 0 || len(shown.GetAttestationIds()) != 1 {
		t.Errorf("a deployer is not shown what was found: %v", shown)
	}
}

// TestRoleMembers: a role is bound to somebody in particular, in the words of an
// issuer, and never to what a job says of itself.
func TestRoleMembers(t *testing.T) {
	w := newWorld(t, "https://assay.test")
	for name, tt := range map[string]struct {
		role   server.RoleConf
		refuse bool
	}{
		"a group":                 {server.RoleConf{Role: "auditor", Members: []server.MemberConf{{Issuer: "https://idp.test", Group: "audit"}}}, false},
		"a repository's prod job": {server.RoleConf{Role: "deployer", Members: []server.MemberConf{{Issuer: "https://ci.test", RepositoryID: "7", Environment: "production"}}}, false},
		"a role of AWS":           {server.RoleConf{Role: "deployer", Members: []server.MemberConf{{RoleARN: "arn:aws:iam::111122223333:role/deploy"}}}, false},
		"an environment":          {server.RoleConf{Role: "admin", Members: []server.MemberConf{{Issuer: "https://ci.test", Environment: "production"}}}, true},
		"a branch":                {server.RoleConf{Role: "admin", Members: []server.MemberConf{{Issuer: "https://ci.test", Ref: "refs/heads/main"}}}, true},
		"a property":              {server.RoleConf{Role: "admin", Members: []server.MemberConf{{Issuer: "https://ci.test", Property: "team=platform"}}}, true},
		"a kind":                  {server.RoleConf{Role: "admin", Members: []server.MemberConf{{Issuer: "https://ci.test", Kind: "human"}}}, true},
		"no issuer":               {server.RoleConf{Role: "admin", Members: []server.MemberConf{{Subject: "alice"}}}, true},
		"nobody":                  {server.RoleConf{Role: "admin"}, true},
		"no name":                 {server.RoleConf{Members: []server.MemberConf{{Issuer: "https://idp.test", Group: "audit"}}}, true},
		"a name in capitals":      {server.RoleConf{Role: "Admin", Members: []server.MemberConf{{Issuer: "https://idp.test", Group: "audit"}}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _ := w.config(t, func(c *server.Config) { c.Access.Roles = []server.RoleConf{tt.role}; c.Data = t.TempDir() })
			s, err := server.New(t.Context(), cfg)
			if !tt.refuse {
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				_ = s.Serve(ctx)
				return
			}
			if refusal.CodeOf(err) != server.CodeConfigInvalid || !strings.Contains(err.Error(), "access.roles[0]") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestBuilderPages: every builder.id resolves, to what stands behind it.
func TestBuilderPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t)
	for path, want := range map[string][]string{
		"/builders/codebuild/in-job":             {"https://assay.test/builders/codebuild/in-job", "Level 2 at best", "Unforgeable (level 3), not met:", "Hosted (level 2), met:"},
		"/builders/github-actions/github-hosted": {"Level 2 at best", "Controlled by the tenant:"},
		"/builders/dev":                          {"Level 0 at best", "Exists (level 1), not met:"},
	} {
		code, page := httpGet(t, l.Server+path)
		if code != 200 {
			t.Errorf("%s: %d", path, code)
		}
		for _, text := range want {
			if !strings.Contains(strings.ReplaceAll(page, "level", "Level"), strings.ReplaceAll(text, "level", "Level")) {
				t.Errorf("%s does not say %q:\n%s", path, text, page)
			}
		}
	}
	for _, path := range []string{"/builders/", "/builders/codebuild", "/builders/codebuild/in-job/", "/builders/../log/"} {
		if code, page := httpGet(t, l.Server+path); code == 200 && strings.Contains(page, "SLSA") {
			t.Errorf("%s is a builder: %s", path, page)
		}
	}
}

// TestEndpointOverride: no setting of the environment leads the service's own AWS
// requests, and what it believes, to another host.
func TestEndpointOverride(t *testing.T) {
	if testing.Short() {
		t.Skip("waits until the AWS SDK has given up; runs without -short")
	}
	address, hits := canary(t)
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_CODEBUILD", "AWS_ENDPOINT_URL_IAM", "AWS_ENDPOINT_URL_S3"} {
		t.Setenv(name, address)
	}
	// Credentials that lead nowhere, and a proxy that does not exist: the real hosts are not reached either.
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "x")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	w := newWorld(t, "https://assay.test")
	idp := people(t, w)
	l := w.start(t, withPeople(idp), func(c *server.Config) {
		c.AWS.Accounts = []server.AWSAccountConf{{
			ID: "111122223333", Regions: []string{"eu-central-1"}, CodeBuildProjects: []string{"app"},
			ReaderRoleARN: "arn:aws:iam::111122223333:role/assay-reader", ExternalID: "an-external-id-0001",
		}}
	})
	_, err := assayv1.NewAttestationServiceClient(l.conn).AttestBuild(l.session(t, person(idp, "a", "attestor")), &assayv1.AttestBuildRequest{
		BuildArn: "arn:aws:codebuild:eu-central-1:111122223333:build/app:11111111-2222-3333-4444-555555555555",
	})
	wantReason(t, err, codes.Unavailable, "CODEBUILD_UNAVAILABLE")
	if hits.Load() != 0 {
		t.Errorf("%d requests went to where AWS_ENDPOINT_URL says", hits.Load())
	}
}
