package server_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/awstest"
	"github.com/assay-build/assay/internal/testenv/oidctest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"github.com/aws/aws-sdk-go-v2/aws"
	cbtypes "github.com/aws/aws-sdk-go-v2/service/codebuild/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"google.golang.org/grpc/codes"
)

const buildTag = "codebuild-build-arn"

// withWebIdentity believes an account's issuer of web identity tokens. With a tag,
// the configuration states that the organization pins it.
func withWebIdentity(issuer, account, tag string) func(*server.Config) {
	return func(c *server.Config) {
		c.Identity.Issuers = append(c.Identity.Issuers, server.IssuerConf{
			URL: issuer, Type: "aws-web-identity", Account: account, AllowedRoles: []string{testenv.AWSDeployRole}, BuildTag: tag,
		})
	}
}

// webIdentity asks STS for a token, with tags as name, value, name, value.
func webIdentity(t testing.TB, cloud *testenv.AWS, creds aws.Credentials, audience []string, tags ...string) (string, error) {
	t.Helper()
	in := &sts.GetWebIdentityTokenInput{Audience: audience, SigningAlgorithm: aws.String("ES384")}
	for i := 0; i+1 < len(tags); i += 2 {
		in.Tags = append(in.Tags, ststypes.Tag{Key: &tags[i], Value: &tags[i+1]})
	}
	out, err := sts.NewFromConfig(cloud.World.AWSConfig(creds, testenv.AWSRegion)).GetWebIdentityToken(t.Context(), in)
	if err != nil {
		return "", err
	}
	return aws.ToString(out.WebIdentityToken), nil
}

func mustWebIdentity(t testing.TB, cloud *testenv.AWS, creds aws.Credentials, audience string, tags ...string) string {
	t.Helper()
	token, err := webIdentity(t, cloud, creds, []string{audience}, tags...)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// forgedWebIdentity is a token of the account's own key that no STS would make.
func forgedWebIdentity(t testing.TB, w *world, account *awstest.Account, claims oidctest.Claims) string {
	t.Helper()
	unused, err := issuerKey()
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := oidctest.New(oidctest.Config{
		BaseURL: account.EnableWebIdentity(), Now: w.now, Key: unused, Job: oidctest.WebIdentity(account.ID(), testenv.AWSDeployRole, nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	id, key := account.WebIdentityKey("RS256")
	all := oidctest.Claims{"aud": w.instance}
	maps.Copy(all, claims)
	return issuer.Forge(oidctest.Forgery{Claims: all, Header: map[string]any{"kid": id}, Key: key})
}

// TestWebIdentity: a token of sts:GetWebIdentityToken is a role that may ask, and
// no build, whatever it says in tags.
func TestWebIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	p := newTrap(cloud)
	own := cloud.Account.EnableWebIdentity()
	other := cloud.World.Account(stranger)
	other.EnableWebIdentity()
	l := w.start(t, withTrap(cloud, p), withWebIdentity(own, testenv.AWSAccount, ""))
	deploy := cloud.Deploy.Session("deploy-1")
	cloud.Deploy.Allow("sts:TagGetWebIdentityToken")
	b := cloud.RunningBuild()

	token := mustWebIdentity(t, cloud, deploy, w.instance)
	resp, err := l.exchange(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	c := resp.GetCaller()
	if c.GetKind() != assayv1.CallerKind_CALLER_KIND_AWS_ROLE || c.GetAwsRole().GetRoleArn() != cloud.Deploy.ARN() || c.GetAwsRole().GetVia() != "web-identity" ||
		c.GetIssuer() != own || c.GetSlsaBuildLevel() != 0 {
		t.Errorf("caller %v", c)
	}
	// A deploy stage asks; it does not attest.
	ctx := bearing(t.Context(), resp.GetSessionToken())
	if _, err := assayv1.NewVerificationServiceClient(l.conn).Verify(ctx, &assayv1.VerifyRequest{Environment: "prod", Subjects: digests("app", okDigest)}); err != nil {
		t.Errorf("Verify: %v", err)
	}
	_, err = assayv1.NewAttestationServiceClient(l.conn).AttestDigests(ctx, &assayv1.AttestDigestsRequest{Subjects: digests("app", okDigest)})
	wantReason(t, err, codes.PermissionDenied, "ACCESS_DENIED")
	// No tag makes a build where the configuration does not say that one is pinned.
	resp, err = l.exchange(t.Context(), mustWebIdentity(t, cloud, deploy, w.instance, buildTag, b.ARN))
	if err != nil || resp.GetCaller().GetKind() != assayv1.CallerKind_CALLER_KIND_AWS_ROLE || resp.GetCaller().GetCodebuild() != nil {
		t.Errorf("a role with a tag: %v, %v", resp.GetCaller(), err)
	}

	role := func(account, name string) aws.Credentials {
		r := cloud.World.Account(account).Role(name, awstest.TrustService("lambda.amazonaws.com"))
		return r.Allow("sts:GetWebIdentityToken").Session("deploy-1")
	}
	own2 := func(changes map[string]any) oidctest.Claims {
		about := map[string]any{"aws_account": testenv.AWSAccount, "principal_id": cloud.Deploy.ARN()}
		for k, v := range changes {
			about[k] = v
		}
		return oidctest.Claims{awstest.STSClaims: about}
	}
	if _, err := l.exchange(t.Context(), forgedWebIdentity(t, w, cloud.Account, nil)); err != nil {
		t.Fatalf("a token like STS's own: %v", err)
	}
	forge := func(c oidctest.Claims) string { return forgedWebIdentity(t, w, cloud.Account, c) }
	elsewhere, err := webIdentity(t, cloud, deploy, []string{w.instance, "https://assay.elsewhere.test"})
	if err != nil {
		t.Fatal(err)
	}
	const unauthenticated, denied = codes.Unauthenticated, codes.PermissionDenied
	for name, tt := range map[string]struct {
		token  string
		code   codes.Code
		reason string
	}{
		"again":                       {token, unauthenticated, "TOKEN_REPLAYED"},
		"of another deployment":       {mustWebIdentity(t, cloud, deploy, "https://assay.elsewhere.test"), unauthenticated, "TOKEN_AUDIENCE_MISMATCH"},
		"of this and another":         {elsewhere, unauthenticated, "TOKEN_AUDIENCE_MISMATCH"},
		"of another account":          {mustWebIdentity(t, cloud, role(stranger, "deploy"), w.instance), unauthenticated, "ISSUER_UNKNOWN"},
		"role that is not allowed":    {mustWebIdentity(t, cloud, role(testenv.AWSAccount, "ops"), w.instance), denied, "CALLER_NOT_ALLOWED"},
		"role with a letter more":     {mustWebIdentity(t, cloud, role(testenv.AWSAccount, "deploy2"), w.instance), denied, "CALLER_NOT_ALLOWED"},
		"role with a letter before":   {mustWebIdentity(t, cloud, role(testenv.AWSAccount, "xdeploy"), w.instance), denied, "CALLER_NOT_ALLOWED"},
		"a build's role":              {mustWebIdentity(t, cloud, b.Credentials(), w.instance), denied, "CALLER_NOT_ALLOWED"},
		"a build's role and tag":      {mustWebIdentity(t, cloud, b.Credentials(), w.instance, buildTag, b.ARN), denied, "CALLER_NOT_ALLOWED"},
		"sub of another account":      {forge(oidctest.Claims{"sub": "arn:aws:iam::" + stranger + ":role/deploy"}), denied, "CALLER_NOT_ALLOWED"},
		"sub of a user":               {forge(oidctest.Claims{"sub": "arn:aws:iam::111122223333:user/deploy"}), denied, "CALLER_NOT_ALLOWED"},
		"sub of the root":             {forge(oidctest.Claims{"sub": "arn:aws:iam::111122223333:root"}), denied, "CALLER_NOT_ALLOWED"},
		"sub of a session":            {forge(oidctest.Claims{"sub": "arn:aws:sts::111122223333:assumed-role/deploy/x"}), denied, "CALLER_NOT_ALLOWED"},
		"sub of any account":          {forge(oidctest.Claims{"sub": "arn:aws:iam::*:role/deploy"}), denied, "CALLER_NOT_ALLOWED"},
		"sub that walks":              {forge(oidctest.Claims{"sub": "arn:aws:iam::111122223333:role/../deploy\x00"}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"account that is not sub's":   {forge(own2(map[string]any{"aws_account": stranger})), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"account as a number":         {forge(own2(map[string]any{"aws_account": 111122223333})), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"principal that is not sub's": {forge(own2(map[string]any{"principal_id": "arn:aws:iam::111122223333:role/ops"})), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"nothing about AWS":           {forge(oidctest.Claims{awstest.STSClaims: nil}), unauthenticated, "TOKEN_CLAIM_MISSING"},
		"a list about AWS":            {forge(oidctest.Claims{awstest.STSClaims: []string{"x"}}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"lives for a day":             {forge(oidctest.Claims{"exp": w.now().Add(24 * time.Hour).Unix()}), unauthenticated, "TOKEN_LIFETIME_TOO_LONG"},
		"no jti":                      {forge(oidctest.Claims{"jti": nil}), unauthenticated, "TOKEN_CLAIM_MISSING"},
	} {
		t.Run(name, func(t *testing.T) {
			before := l.kept(t)
			_, err := l.exchange(t.Context(), tt.token)
			wantReason(t, err, tt.code, tt.reason)
			l.unchanged(t, before)
		})
	}
	cloud.Account.RotateWebIdentityKeys()
	w.advance(10 * time.Minute)
	if _, err := l.exchange(t.Context(), forgedWebIdentity(t, w, cloud.Account, nil)); err != nil {
		t.Errorf("a token of the rotated keys: %v", err)
	}
	p.sprung(t)
}

// TestWebIdentityPinned: where the organization pins the request tag, the token of a
// job is its build, and no other's; and one who pinned nothing gets no further.
func TestWebIdentityPinned(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	p := newTrap(cloud)
	own := cloud.Account.EnableWebIdentity()
	l := w.start(t, withTrap(cloud, p), withWebIdentity(own, testenv.AWSAccount, buildTag))
	b, other := cloud.RunningBuild(), cloud.RunningBuild()
	cloud.Deploy.Allow("sts:TagGetWebIdentityToken")
	deploy := cloud.Deploy.Session("deploy-1")
	// Before the pin anybody who may tag can name a build: the tag of another role's
	// build is refused even so, and that of the role's own other build is what an SCP is for.
	unpinned := mustWebIdentity(t, cloud, deploy, w.instance, buildTag, b.ARN)
	cloud.Account.PinRequestTag(buildTag)
	for _, creds := range []aws.Credentials{deploy, other.Credentials()} {
		if _, err := webIdentity(t, cloud, creds, []string{w.instance}, buildTag, b.ARN); err == nil {
			t.Fatal("the stand-in does not pin; the test tests nothing")
		}
	}

	resp, err := l.exchange(t.Context(), mustWebIdentity(t, cloud, b.Credentials(), w.instance, buildTag, b.ARN))
	if err != nil {
		t.Fatal(err)
	}
	c := resp.GetCaller()
	if c.GetKind() != assayv1.CallerKind_CALLER_KIND_CODEBUILD || c.GetCodebuild().GetBuildArn() != b.ARN || c.GetSlsaBuildLevel() != 2 || c.GetBuilderId() != w.instance+"/builders/codebuild/in-job" {
		t.Errorf("caller %v", c)
	}
	a := l.digests(t, bearing(t.Context(), resp.GetSessionToken()), subject("app", "app")).GetAttestation()
	if a.GetInvocationId() != b.ARN {
		t.Errorf("invocation %s", a.GetInvocationId())
	}
	if resp, err := l.exchange(t.Context(), mustWebIdentity(t, cloud, deploy, w.instance)); err != nil || resp.GetCaller().GetKind() != assayv1.CallerKind_CALLER_KIND_AWS_ROLE {
		t.Errorf("a role without the tag: %v, %v", resp.GetCaller(), err)
	}
	ended := cloud.RunningBuild()
	late := mustWebIdentity(t, cloud, ended.Credentials(), w.instance, buildTag, ended.ARN)
	ended.Finish(cbtypes.StatusTypeSucceeded)
	tagged := func(value string) string {
		return forgedWebIdentity(t, w, cloud.Account, oidctest.Claims{
			"sub":             cloud.BuildRole.ARN(),
			awstest.STSClaims: map[string]any{"aws_account": testenv.AWSAccount, "principal_id": cloud.BuildRole.ARN(), "request_tags": map[string]string{buildTag: value}},
		})
	}
	for name, tt := range map[string]struct {
		token  string
		code   codes.Code
		reason string
	}{
		"another role's build":     {unpinned, codes.Unauthenticated, "CODEBUILD_ROLE_MISMATCH"},
		"a build that is over":     {late, codes.Unauthenticated, "CODEBUILD_NOT_RUNNING"},
		"no tag":                   {mustWebIdentity(t, cloud, b.Credentials(), w.instance), codes.PermissionDenied, "CALLER_NOT_ALLOWED"},
		"a build that is none":     {tagged(strings.Replace(b.ARN, b.UUID, "00000000-0000-4000-8000-000000000000", 1)), codes.NotFound, "CODEBUILD_BUILD_NOT_FOUND"},
		"of another account":       {tagged(strings.Replace(b.ARN, testenv.AWSAccount, stranger, 1)), codes.InvalidArgument, "CODEBUILD_BUILD_ID_INVALID"},
		"of another region":        {tagged(strings.Replace(b.ARN, testenv.AWSRegion, "us-east-1", 1)), codes.PermissionDenied, "CODEBUILD_REGION_NOT_ALLOWED"},
		"of another project":       {tagged(strings.Replace(b.ARN, "/app:", "/app2:", 1)), codes.PermissionDenied, "CODEBUILD_PROJECT_NOT_ALLOWED"},
		"an id":                    {tagged(b.ID), codes.InvalidArgument, "CODEBUILD_BUILD_ID_INVALID"},
		"nothing in the tag":       {tagged(""), codes.InvalidArgument, "CODEBUILD_BUILD_ID_INVALID"},
		"a variable in the policy": {tagged("${codebuild:BuildArn}"), codes.InvalidArgument, "CODEBUILD_BUILD_ID_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			before := l.kept(t)
			_, err := l.exchange(t.Context(), tt.token)
			wantReason(t, err, tt.code, tt.reason)
			l.unchanged(t, before)
		})
	}
	p.sprung(t)
}
