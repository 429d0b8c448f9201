package awstest

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/go-cmp/cmp"
)

const audience = "https://assay.example.com"

// tokenInput asks for a token, with tags given as key, value, key, value.
func tokenInput(algorithm string, tags ...string) *sts.GetWebIdentityTokenInput {
	in := &sts.GetWebIdentityTokenInput{Audience: []string{audience}, SigningAlgorithm: aws.String(algorithm)}
	for i := 0; i < len(tags); i += 2 {
		in.Tags = append(in.Tags, types.Tag{Key: aws.String(tags[i]), Value: aws.String(tags[i+1])})
	}
	return in
}

// TestWebIdentityToken has another implementation of OpenID Connect discover the
// issuer and verify its tokens.
func TestWebIdentityToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	role := acct.Role("app", Path("/service-role/")).Allow("sts:GetWebIdentityToken", "sts:TagGetWebIdentityToken")
	client := stsClient(w, role.Session("s1"), testRegion)
	issuer := acct.EnableWebIdentity()
	if again := acct.EnableWebIdentity(); again != issuer {
		t.Errorf("the issuer changed from %s to %s", issuer, again)
	}
	ctx := oidc.ClientContext(context.Background(), w.HTTPClient())
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		t.Fatal(err)
	}
	verifier := provider.Verifier(&oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{oidc.RS256, oidc.ES384}})
	for _, algorithm := range []string{"RS256", "ES384"} {
		in := tokenInput(algorithm, "codebuild-build-arn", "arn:aws:codebuild:eu-west-1:111122223333:build/app:1")
		in.DurationSeconds = aws.Int32(600)
		out, err := client.GetWebIdentityToken(context.Background(), in)
		if err != nil {
			t.Fatal(err)
		}
		token, err := verifier.Verify(ctx, aws.ToString(out.WebIdentityToken))
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		var claims map[string]any
		if err := token.Claims(&claims); err != nil {
			t.Fatal(err)
		}
		about, _ := claims[STSClaims].(map[string]any)
		delete(about, "original_session_exp")
		if diff := cmp.Diff(map[string]any{
			"aws_account": testAccount, "source_region": testRegion, "principal_id": role.ARN(),
			"request_tags": map[string]any{"codebuild-build-arn": "arn:aws:codebuild:eu-west-1:111122223333:build/app:1"},
		}, about); diff != "" {
			t.Errorf("claims (-want +got):\n%s", diff)
		}
		if token.Subject != role.ARN() || claims["aud"] != audience || claims["jti"] == "" ||
			token.Expiry.Sub(token.IssuedAt) != 10*time.Minute || !token.Expiry.Equal(aws.ToTime(out.Expiration)) {
			t.Errorf("token %+v", claims)
		}
	}
	acct.RotateWebIdentityKeys()
	out, err := client.GetWebIdentityToken(context.Background(), tokenInput("RS256"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifier.Verify(ctx, aws.ToString(out.WebIdentityToken)); err != nil {
		t.Errorf("with new keys: %v", err)
	}
	other := oidc.NewVerifier(w.Account(otherAccount).EnableWebIdentity(), oidc.NewRemoteKeySet(ctx, w.Account(otherAccount).EnableWebIdentity()+"/.well-known/jwks.json"), &oidc.Config{ClientID: audience})
	if _, err := other.Verify(ctx, aws.ToString(out.WebIdentityToken)); err == nil {
		t.Error("the issuer of another account vouches for the token")
	}
}

// TestWebIdentityRefusals holds the request to its constraints and the caller to
// permissions.
func TestWebIdentityRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct, disabled := w.Account(testAccount), w.Account(otherAccount)
	acct.EnableWebIdentity()
	all := acct.Role("all").Allow("sts:*")
	untagged := acct.Role("untagged").Allow("sts:GetWebIdentityToken")
	many := make([]string, 0, 102)
	for i := range 51 {
		many = append(many, "k"+strconv.Itoa(i), "v")
	}
	with := func(change func(*sts.GetWebIdentityTokenInput)) *sts.GetWebIdentityTokenInput {
		in := tokenInput("RS256")
		change(in)
		return in
	}
	for _, tt := range []struct {
		name   string
		creds  aws.Credentials
		region string
		in     *sts.GetWebIdentityTokenInput
		code   string
	}{
		{"algorithm", all.Session("s1"), testRegion, tokenInput("HS256"), "ValidationError"},
		{"no audience", all.Session("s1"), testRegion, with(func(in *sts.GetWebIdentityTokenInput) { in.Audience = []string{} }), "ValidationError"},
		{"empty audience", all.Session("s1"), testRegion, with(func(in *sts.GetWebIdentityTokenInput) { in.Audience = []string{""} }), "ValidationError"},
		{"short", all.Session("s1"), testRegion, with(func(in *sts.GetWebIdentityTokenInput) { in.DurationSeconds = aws.Int32(59) }), "ValidationError"},
		{"long", all.Session("s1"), testRegion, with(func(in *sts.GetWebIdentityTokenInput) { in.DurationSeconds = aws.Int32(3601) }), "ValidationError"},
		{"longer than the session", all.SessionFor("s1", 15*time.Minute), testRegion, with(func(in *sts.GetWebIdentityTokenInput) { in.DurationSeconds = aws.Int32(1800) }), "SessionDurationEscalationException"},
		{"51 tags", all.Session("s1"), testRegion, tokenInput("RS256", many...), "ValidationError"},
		{"a tag twice", all.Session("s1"), testRegion, tokenInput("RS256", "a", "1", "a", "2"), "InvalidParameterValue"},
		{"a strange tag", all.Session("s1"), testRegion, tokenInput("RS256", "a\n", "1"), "ValidationError"},
		{"tags not permitted", untagged.Session("s1"), testRegion, tokenInput("RS256", "a", "1"), "AccessDenied"},
		{"not permitted", acct.Role("none").Session("s1"), testRegion, tokenInput("RS256"), "AccessDenied"},
		{"root", acct.Root(), testRegion, tokenInput("RS256"), "AccessDenied"},
		{"not enabled", disabled.Role("all").Allow("*").Session("s1"), testRegion, tokenInput("RS256"), "OutboundWebIdentityFederationDisabledException"},
		{"global endpoint", all.Session("s1"), "aws-global", tokenInput("RS256"), "InvalidAction"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := stsClient(w, tt.creds, tt.region).GetWebIdentityToken(context.Background(), tt.in)
			wantCode(t, err, tt.code)
		})
	}
	if _, err := stsClient(w, untagged.Session("s1"), testRegion).GetWebIdentityToken(context.Background(), tokenInput("RS256")); err != nil {
		t.Error(err)
	}
}

// TestPinRequestTag sees that with the pin only a build can name itself, and only
// itself.
func TestPinRequestTag(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	acct.EnableWebIdentity()
	const tag, build = "codebuild-build-arn", "arn:aws:codebuild:eu-west-1:111122223333:build/app:1"
	role := acct.Role("app", TrustService("codebuild.amazonaws.com")).Allow("sts:*")
	inBuild, err := role.AssumeByService("codebuild.amazonaws.com", "AWSCodeBuild-1", ServiceContext{
		Context: map[string]string{"codebuild:BuildArn": build},
	})
	if err != nil {
		t.Fatal(err)
	}
	outside := role.Session("AWSCodeBuild-1")
	acct.PinRequestTag(tag)
	for _, tt := range []struct {
		name  string
		creds aws.Credentials
		tags  []string
		ok    bool
	}{
		{"the build names itself", inBuild, []string{tag, build}, true},
		{"the build names nothing", inBuild, nil, true},
		{"the build names another", inBuild, []string{tag, strings.Replace(build, ":1", ":2", 1)}, false},
		{"the build names itself in other letters", inBuild, []string{strings.ToUpper(tag), build}, false},
		{"both", inBuild, []string{tag, build, strings.ToUpper(tag), "x"}, false},
		{"somebody else names the build", outside, []string{tag, build}, false},
		{"somebody else names nothing", outside, []string{tag, ""}, false},
		{"another tag", outside, []string{"x", build}, true},
	} {
		_, err := stsClient(w, tt.creds, testRegion).GetWebIdentityToken(context.Background(), tokenInput("ES384", tt.tags...))
		if tt.ok && err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if !tt.ok {
			t.Run(tt.name, func(t *testing.T) { wantCode(t, err, "AccessDenied") })
		}
	}
}

// TestOutboundFederation turns the feature on as an administrator does.
func TestOutboundFederation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	client := iamClient(w, acct.Role("admin").Allow("iam:*").Session("s"), testRegion)
	_, err := client.GetOutboundWebIdentityFederationInfo(context.Background(), nil)
	wantCode(t, err, "FeatureDisabled")
	on, err := client.EnableOutboundWebIdentityFederation(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.EnableOutboundWebIdentityFederation(context.Background(), nil)
	wantCode(t, err, "FeatureEnabled")
	info, err := client.GetOutboundWebIdentityFederationInfo(context.Background(), &iam.GetOutboundWebIdentityFederationInfoInput{})
	if err != nil || aws.ToString(info.IssuerIdentifier) != aws.ToString(on.IssuerIdentifier) || !info.JwtVendingEnabled {
		t.Errorf("%+v %v, want %s", info, err, aws.ToString(on.IssuerIdentifier))
	}
	for path, want := range map[string]int{
		"/.well-known/openid-configuration": http.StatusOK, "/.well-known/jwks.json": http.StatusOK, "/": http.StatusNotFound,
	} {
		resp, err := w.HTTPClient().Get(aws.ToString(on.IssuerIdentifier) + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want || strings.Contains(string(b), `"d":`) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, b)
		}
	}
}
